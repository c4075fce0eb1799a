"""Address of the fabric and key of a run, stored in ``<run_dir>/fabric.json``."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from diaspora_parsl.errors import ConfigurationError, FabricUnavailableError, FabricURLError
from diaspora_parsl.events import TOPIC_TASK
from diaspora_parsl.fabric.base import open_fabric

RECORD: Final = "fabric.json"
DATA: Final = "fabric"
VARIABLE: Final = "DIASPORA_PARSL_FABRIC"
KEY_VARIABLE: Final = "DIASPORA_PARSL_KEY"


def write_record(run_dir: Path, url: str) -> Path:
    """Write ``fabric.json`` (url, pid, host, start as Unix time) atomically, readable by the owner only."""
    content = {"url": url, "pid": os.getpid(), "host": socket.gethostname(), "started": time.time()}
    if key := read_record(run_dir).get("key"):
        content["key"] = key
    return _write(run_dir, content)


def _write(run_dir: Path, content: dict[str, Any]) -> Path:
    path = run_dir / RECORD
    draft = run_dir / f"{RECORD}.{os.getpid()}"
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(content, file)
    draft.replace(path)
    return path


def make_key(run_dir: Path) -> str:
    """Return the key that signs requests to the pools of a run. Never log it.

    It is ``DIASPORA_PARSL_KEY``, else the key in the record of the run, else a new one. The record stores it beside the
    address, so that readers of the record can send requests.
    """
    record = read_record(run_dir)
    known = record.get("key")
    key = os.environ.get(KEY_VARIABLE, "").strip() or (known if isinstance(known, str) else "") or secrets.token_hex(32)
    if key != known:
        with contextlib.suppress(OSError):  # then requests need the key in the environment
            _write(run_dir, record | {"key": key})
    return key


def find_key(url: str, run_dir: Path | None = None) -> str:
    """Return the key for requests to pools on a fabric: from the run, else ``DIASPORA_PARSL_KEY``, else "".

    Args:
        url: URL of the fabric; without ``run_dir`` it selects the run below ``./runinfo``.
        run_dir: Run directory, or the ``fabric.json`` in it.
    """
    if run_dir is not None:
        records = [read_record(run_dir.parent if run_dir.name == RECORD else run_dir)]
    else:
        runs = sorted(Path.cwd().glob(f"runinfo/*/{RECORD}"), key=lambda path: path.stat().st_mtime, reverse=True)
        records = [record for run in runs if (record := read_record(run.parent)).get("url") == url]
    keys = [key for record in records if isinstance(key := record.get("key"), str)]
    return keys[0] if keys else os.environ.get(KEY_VARIABLE, "").strip()


def read_record(run_dir: Path) -> dict[str, Any]:
    """Return the content of ``fabric.json``; empty if it is missing or unreadable."""
    try:
        content = json.loads((run_dir / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def live_url(run_dir: Path) -> str | None:
    """Return the URL of the fabric of a run if it answers now, else None."""
    url = read_record(run_dir).get("url")
    if not isinstance(url, str) or url.startswith(("embedded", "memory:")):
        return None
    try:
        fabric = open_fabric(url)
    except ConfigurationError:
        return None  # a damaged record, or a transport that is not installed here
    try:
        fabric.subscribe([TOPIC_TASK]).close()
    except FabricUnavailableError:
        return None
    finally:
        fabric.close()
    return url


def has_data(run_dir: Path) -> bool:
    """Whether the run directory holds the data of an embedded fabric."""
    return (run_dir / DATA / "appendonlydir").is_dir()


def ended_url(run_dir: Path) -> str:
    """Return the URL that opens the stored data of an ended run."""
    return f"embedded://{quote(str(run_dir.resolve()))}"


def _url_of(run_dir: Path) -> str | None:
    return live_url(run_dir) or (ended_url(run_dir) if has_data(run_dir) else None)


def _elsewhere(run_dir: Path) -> str:
    record = read_record(run_dir)
    host = record.get("host")
    url = record.get("url")
    is_loopback = isinstance(url, str) and urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
    if host and is_loopback and host != socket.gethostname():
        return f" The run said it is on the host {host}, where only {host} can reach its fabric: run this there."
    return ""


def find_fabric(run_dir: str | Path | None = None) -> str:
    """Find the URL of a fabric for `open_fabric`. It holds the password: never log it.

    The search order is ``run_dir``, the environment variable ``DIASPORA_PARSL_FABRIC``, and the runs below
    ``./runinfo``: live runs before ended ones, newest first.

    Args:
        run_dir: Run directory, such as ``runinfo/003``, or the ``fabric.json`` in it.

    Raises:
        FabricURLError: No fabric was found; the message lists the searched locations and what to write.
    """
    if run_dir is not None:
        folder = Path(run_dir)
        folder = folder.parent if folder.name == RECORD else folder
        url = _url_of(folder)
        if url is None:
            raise FabricURLError(
                f"{folder} holds no fabric: no {RECORD} of a live run, and no data of one that ended."
                f'{_elsewhere(folder)} Give the run directory of a pool with fabric="embedded", such as runinfo/000.'
            )
        return url
    if url := os.environ.get(VARIABLE, "").strip():
        return url
    here = Path.cwd()
    runs = [path.parent for path in here.glob(f"runinfo/*/{RECORD}")]
    runs.sort(key=lambda run: (run / RECORD).stat().st_mtime, reverse=True)
    for candidates in (map(live_url, runs), (ended_url(run) for run in runs if has_data(run))):
        found = next((url for url in candidates if url), None)
        if found:
            return found
    raise FabricURLError(
        f"No fabric found: {VARIABLE} is not set, and there is no runinfo/*/{RECORD} below {here}. Go to the directory "
        f'where the workflow was started, give a run directory, or set {VARIABLE}="redis://host:6379/0".'
        + "".join(map(_elsewhere, runs[:1]))
    )
