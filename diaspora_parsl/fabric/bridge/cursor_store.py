"""How far a bridge has come: one small file per link, and a lock, in a folder for one bridge alone."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from diaspora_parsl.errors import ConfigurationError


class Cursor:
    """The position in the source up to which the destination has everything. One thread.

    Args:
        path: of its file; it need not exist.

    Raises:
        ConfigurationError: there is a file, but it holds no position.
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
                f"{path} does not say how far the bridge has come ({error}). Remove it: then everything that the "
                "source has kept is sent once more, and readers drop what they know."
            ) from None

    def save(self, position: dict[str, str]) -> None:
        """Replace the file in one step, so that it holds an old or a new position whenever the process ends.

        Raises:
            OSError: the disk does not take it.
        """
        draft = self.path.with_suffix(".new")
        with draft.open("w", encoding="utf-8") as file:
            json.dump({"position": position}, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path)
        self.position = position


class StateFolder:
    """Held by one bridge at a time; a bridge that was killed holds it no more.

    Args:
        path: made if it is not there.

    Raises:
        ConfigurationError: another bridge holds it, or it cannot be written.
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
        """The cursor of a link.

        Raises:
            ConfigurationError: its file is damaged.
        """
        return Cursor(self.path / f"{label}.json")

    def close(self) -> None:
        """Let another bridge have it."""
        os.close(self._lock)
