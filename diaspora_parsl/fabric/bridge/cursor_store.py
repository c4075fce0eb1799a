"""Durable cursors of a bridge: a locked folder with one file per link."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from diaspora_parsl.errors import ConfigurationError


class Cursor:
    """Position in the source up to which the destination has every event. One thread at a time.

    Args:
        path: Path of the cursor file, which need not exist.

    Raises:
        ConfigurationError: The file holds no position.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position: dict[str, str] | None = None
        if not path.exists():
            return
        try:
            content: Any = json.loads(path.read_text(encoding="utf-8"))
            self.position = {str(topic): str(cursor) for topic, cursor in content["position"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(
                f"{path} holds no position ({error}). Remove it to send all events of the source again; readers drop "
                "duplicates."
            ) from None

    def save(self, position: dict[str, str]) -> None:
        """Replace the file atomically.

        Raises:
            OSError: The file cannot be written.
        """
        draft = self.path.with_suffix(".new")
        with draft.open("w", encoding="utf-8") as file:
            json.dump({"position": position}, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path)
        self.position = position


class StateFolder:
    """Folder that one bridge locks at a time; the lock ends with its process.

    Args:
        path: Path of the folder, which is created if missing.

    Raises:
        ConfigurationError: Another bridge holds the folder, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigurationError(
                f"The bridge cannot keep its state in {path}: {error}. Write another folder."
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(self._lock, 20).decode("ascii", "replace").strip()
            os.close(self._lock)
            raise ConfigurationError(
                f"Another bridge works with the state in {path} (process {holder or 'unknown'}). End that one, or "
                "write another folder."
            ) from None
        os.truncate(self._lock, 0)
        os.write(self._lock, f"{os.getpid()}\n".encode())

    def cursor(self, label: str) -> Cursor:
        """Return the cursor of a link.

        Raises:
            ConfigurationError: The cursor file is damaged.
        """
        return Cursor(self.path / f"{label}.json")

    def close(self) -> None:
        """Unlock the folder."""
        os.close(self._lock)
