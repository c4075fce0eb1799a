"""The store of candidates on disk: arrays that are mapped, not read, and texts that are found by offset."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from diaspora_parsl.errors import ConfigurationError

from ..chemistry.fingerprints import FINGERPRINT_BITS
from ..records import Entry, Row

STATE: Final = "state.json"
LINES: Final = "candidates.smi"
REFUSED: Final = "refused.jsonl"
#: Arrays of the store: kind of number, and shape of one molecule.
ARRAYS: Final[dict[str, tuple[Any, tuple[int, ...]]]] = {
    "fingerprints": (np.dtype("|u1"), (FINGERPRINT_BITS // 8,)),
    "numbers": (np.dtype("<i8"), ()),
    "hashes": (np.dtype("<u8"), ()),
    "ends": (np.dtype("<u8"), ()),
}
_REFUSED_KEYS: Final = ("molecule", "name", "smiles", "status", "detail")
#: Molecules in the table of the newest ones, before they are sorted into the rest.
_RECENT: Final = 1 << 16


class Writer:
    """Writes a store, a chunk at a time; what a checkpoint has seen survives kill -9, and is gone on from.

    Args:
        folder: of the store.
        key: of library and settings; a store with another key is begun again.
    """

    def __init__(self, folder: Path, key: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        state = read_state(folder)
        if state.get("key") != key or not key:
            (folder / STATE).unlink(missing_ok=True)
            for old in folder.glob("property-*.npy"):
                old.unlink()
            state = {}
        self._folder = folder
        self._key = key
        self.read: int = state.get("read", 0)
        self.candidates: int = state.get("candidates", 0)
        self.refused: int = state.get("refused", 0)
        sizes: dict[str, int] = state.get("bytes", {})
        self._arrays = {name: _array(folder, name, self.candidates) for name in ARRAYS}
        self._lines = _cut(folder / LINES, sizes.get(LINES, 0))
        self._refused = _cut(folder / REFUSED, sizes.get(REFUSED, 0))
        self._end = self._lines.tell()
        self._seen = Seen()
        if self.candidates:
            self._seen.add(*(np.fromfile(folder / f"{name}.npy", ARRAYS[name][0], offset=_header(name, 0)[1])
                             for name in ("hashes", "numbers")))  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (*self._arrays.values(), self._lines, self._refused):
            file.close()

    def add(
        self, read: int, entries: Sequence[Entry], hashes: NDArray[np.uint64], fingerprints: NDArray[np.uint8]
    ) -> list[tuple[Entry, int]]:
        """Append molecules; return the duplicates, each with the number of the first.

        Args:
            read: lines of the library that are done with these.
            entries: canonical.
            hashes: of their SMILES.
            fingerprints: packed.
        """
        numbers = np.array([entry.molecule for entry in entries], np.int64)
        first = self._seen.add(hashes, numbers)
        new = first < 0
        lines = [
            f"{entry.smiles}\t{' '.join(entry.name.split())}\n".encode()
            for entry, fresh in zip(entries, new, strict=True)
            if fresh
        ]
        ends = self._end + np.cumsum([len(line) for line in lines], dtype=np.uint64)
        self._lines.write(b"".join(lines))
        for name, values in (("fingerprints", fingerprints[new]), ("numbers", numbers[new]),
                             ("hashes", hashes[new]), ("ends", ends)):  # fmt: skip
            self._arrays[name].write(np.ascontiguousarray(values, ARRAYS[name][0]).tobytes())
        self._end = int(ends[-1]) if len(ends) else self._end
        self.candidates += len(lines)
        self.read = read
        return [(entries[int(place)], int(first[place])) for place in np.flatnonzero(~new)]

    def refuse(self, rows: Sequence[Row]) -> None:
        """Append lines that are no candidates."""
        for row in rows:
            kept = [getattr(row, key) for key in _REFUSED_KEYS]
            self._refused.write(json.dumps(kept, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
        self.refused += len(rows)

    def checkpoint(self, *, complete: bool = False) -> None:
        """Make sure of what was written so far."""
        for name, file in self._arrays.items():
            if complete:
                file.flush()
                with (self._folder / f"{name}.npy").open("r+b") as again:
                    again.write(_header(name, self.candidates)[0])
        for file in (*self._arrays.values(), self._lines, self._refused):
            file.flush()
            os.fsync(file.fileno())
        state = {
            "key": self._key,
            "complete": complete,
            "read": self.read,
            "candidates": self.candidates,
            "refused": self.refused,
            "bytes": {LINES: self._end, REFUSED: self._refused.tell()},
        }
        new = self._folder / (STATE + ".new")
        new.write_text(json.dumps(state, indent=1), encoding="utf-8")
        new.replace(self._folder / STATE)


class Seen:
    """Which molecules there are already: 16 bytes each, in sorted arrays that grow by merging."""

    def __init__(self) -> None:
        self._hashes = np.empty(0, np.uint64)
        self._numbers = np.empty(0, np.int64)
        self._recent: dict[int, int] = {}

    def add(self, hashes: NDArray[np.uint64], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each molecule the number of the first like it, -1 if it is the first."""
        first = np.full(len(hashes), -1, np.int64)
        if len(self._hashes):
            place = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
            old = self._hashes[place] == hashes
            first[old] = self._numbers[place[old]]
        for index in np.flatnonzero(first < 0):
            key, number = int(hashes[index]), int(numbers[index])
            known = self._recent.setdefault(key, number)
            if known != number:
                first[index] = known
        if len(self._recent) >= _RECENT:
            self._merge()
        return first

    def _merge(self) -> None:
        keys = np.fromiter(self._recent.keys(), np.uint64, len(self._recent))
        order = np.argsort(keys)
        keys = keys[order]
        values = np.fromiter(self._recent.values(), np.int64, len(self._recent))[order]
        places = np.searchsorted(self._hashes, keys)
        self._hashes = np.insert(self._hashes, places, keys)
        self._numbers = np.insert(self._numbers, places, values)
        self._recent.clear()


def read_state(folder: Path) -> dict[str, Any]:
    """What is known of a store; empty if there is none, or its files are not what it says."""
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        sizes = {**state["bytes"], **{f"{name}.npy": _size(name, state["candidates"]) for name in ARRAYS}}
        whole = all((folder / name).stat().st_size >= size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return state if whole and isinstance(state, dict) else {}


def open_array(folder: Path, name: str) -> NDArray[Any]:
    """A mapped array of a finished store."""
    found: NDArray[Any] = np.load(folder / f"{name}.npy", mmap_mode="r")
    return found


def refused_rows(folder: Path) -> Iterator[Row]:
    """The rows of what was no candidate, in the order of the library."""
    with (folder / REFUSED).open("rb") as file:
        for line in file:
            yield Row(**dict(zip(_REFUSED_KEYS, json.loads(line), strict=True)))


def _header(name: str, count: int) -> tuple[bytes, int]:
    """The header of an array of a given length; its own length is the same for any."""
    kind, shape = ARRAYS[name]
    file = io.BytesIO()
    described = {"descr": npy.dtype_to_descr(kind), "fortran_order": False, "shape": (count, *shape)}
    npy.write_array_header_1_0(file, described)
    return file.getvalue(), file.tell()


def _size(name: str, count: int) -> int:
    kind, shape = ARRAYS[name]
    return _header(name, 0)[1] + count * int(kind.itemsize) * math.prod(shape)


def _array(folder: Path, name: str, count: int) -> IO[bytes]:
    path = folder / f"{name}.npy"
    if not count:
        path.write_bytes(_header(name, 0)[0])
    return _cut(path, _size(name, count))


def _cut(path: Path, size: int) -> IO[bytes]:
    """A file to append to, without what was written after the last checkpoint."""
    file = path.open("r+b" if path.exists() else "w+b")
    file.truncate(size)
    file.seek(size)
    return file


def unfinished(folder: Path) -> ConfigurationError:
    """What to say of a folder without a whole store."""
    return ConfigurationError(f"{folder} holds no whole store of candidates. Give the library again.")
