"""Candidates: the readable, distinct molecules of a library, in a store on disk that is mapped rather than read."""

from __future__ import annotations

import os
import tempfile
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from shutil import rmtree
from typing import Final, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from diaspora_parsl.errors import ConfigurationError

from ...sandbox.pool import Spoilt, in_processes
from ..chemistry.fingerprints import FINGERPRINT, FINGERPRINT_BITS
from ..chemistry.molecules import PROPERTIES, Chunk, describe, look_at, refusal, scaffold_hashes
from ..objective import Scope, digest_of
from ..records import Entry, Row
from . import store
from .reader import Library

__all__ = ["FINGERPRINT", "FINGERPRINT_BITS", "Candidates", "find_candidates"]

#: Molecules that are looked at in one go: a third of a second.
_CHUNK: Final = 1_000
#: Seconds between two checkpoints.
_CHECKPOINT: Final = 5.0
#: Seconds for a chunk, and for a molecule of a chunk that took longer or crashed.
_CHUNK_LIMIT: Final = 60.0
_ALONE_LIMIT: Final = 5.0

T = TypeVar("T")
R = TypeVar("R")
#: Receives the numbers of lines read, candidates found and lines refused, after each chunk.
Observer = Callable[[int, int, int], None]


class Entries(Sequence[Entry]):
    """Number, name and canonical SMILES of each candidate, read from the store when asked for."""

    def __init__(self, folder: Path) -> None:
        self._numbers = store.open_array(folder, "numbers")
        self._ends = store.open_array(folder, "ends")
        self._text: NDArray[np.uint8] = np.memmap(folder / store.LINES, np.uint8, "r")

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, place: int) -> Entry: ...
    @overload
    def __getitem__(self, place: slice) -> list[Entry]: ...
    def __getitem__(self, place: int | slice) -> Entry | list[Entry]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        place %= len(self)
        begin = int(self._ends[place - 1]) if place else 0
        smiles, _, name = self._text[begin : int(self._ends[place])].tobytes().decode().rstrip("\n").partition("\t")
        return Entry(int(self._numbers[place]), name, smiles)


class _Temporary:
    """A folder that goes with this object."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="candidates-"))
        weakref.finalize(self, rmtree, self.folder, ignore_errors=True)


class Refusals:
    """Rows for what is no candidate, with the reason, read from the store each time they are iterated over."""

    def __init__(self, folder: Path, count: int, owner: object) -> None:
        self._folder = folder
        self._count = count
        self._owner = owner

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Row]:
        yield from store.refused_rows(self._folder)  # this object, and with it the folder, lives as long


class Candidates:
    """What can be chosen from.

    Attributes:
        folder: of the store.
        entries: number in the library, name and canonical SMILES of each candidate.
        fingerprints: by `fingerprints.fingerprint`, packed and mapped: ``uint8`` of shape (candidates, 256).
        hashes: ``uint64`` of each canonical SMILES, by `objectives.base.hash_of`.
        refused: rows for what is no candidate.

    Args:
        folder: made by `find_candidates`.
        processes: for properties and scaffolds; 0 computes them in this one.
        owner: kept as long as the files are needed.

    Raises:
        ConfigurationError: there is no whole store in the folder.
    """

    def __init__(self, folder: Path, *, processes: int | None = None, owner: object = None) -> None:
        state = store.read_state(folder)
        if not state.get("complete"):
            raise store.unfinished(folder)
        self.folder = folder
        self.entries = Entries(folder)
        self.fingerprints: NDArray[np.uint8] = store.open_array(folder, "fingerprints")
        self.hashes: NDArray[np.uint64] = store.open_array(folder, "hashes")
        self.refused = Refusals(folder, state["refused"], owner)
        self._processes = _cores() if processes is None else processes

    def __len__(self) -> int:
        return len(self.entries)

    def properties(self, names: Sequence[str]) -> NDArray[np.float32]:
        """Properties such as ``qed`` and ``mw``, computed once and kept in the store.

        Args:
            names: of `molecules.PROPERTIES`.

        Returns:
            Of shape (candidates, names); NaN where RDKit fails.

        Raises:
            ConfigurationError: a name is unknown.
        """
        if unknown := [name for name in names if name not in PROPERTIES]:
            raise ConfigurationError(f"{', '.join(unknown)} cannot be computed. Write some of {', '.join(PROPERTIES)}.")
        missing = [name for name in names if not self._kept(name).exists()]
        if missing:
            found = self._compute(partial(describe, names=missing), np.full((1, len(missing)), np.nan, np.float32))
            for column, name in enumerate(missing):
                self._keep(name, found[:, column])
        return np.stack([np.load(self._kept(name), mmap_mode="r") for name in names], axis=1)

    def scaffolds(self) -> NDArray[np.int32]:
        """A number for the scaffold of each candidate, the same for all that share it; kept in the store."""
        if not self._kept("scaffold").exists():
            hashes = self._compute(scaffold_hashes, np.zeros(1, np.uint64))
            self._keep("scaffold", np.unique(hashes, return_inverse=True)[1].astype(np.int32))
        found: NDArray[np.int32] = np.load(self._kept("scaffold"), mmap_mode="r")
        return found

    def _compute(self, function: Callable[[list[str]], NDArray[R]], spoilt: NDArray[R]) -> NDArray[R]:  # type: ignore[type-var]
        chunks = _chunks(entry.smiles for entry in self.entries)
        with closing(_mapped(function, chunks, self._processes)) as answers:
            return np.concatenate([spoilt if isinstance(one, Spoilt) else one for one in answers])

    def _kept(self, name: str) -> Path:
        return self.folder / f"property-{name}.npy"

    def _keep(self, name: str, values: NDArray[np.generic]) -> None:
        new = self._kept(name).with_suffix(".new")
        with new.open("wb") as file:
            np.save(file, np.ascontiguousarray(values))
        new.replace(self._kept(name))


def find_candidates(
    library: Iterable[Entry],
    folder: Path | None = None,
    *,
    scope: Scope | None = None,
    processes: int | None = None,
    observer: Observer | None = None,
) -> Candidates:
    """Read a library once: make SMILES canonical, strip salts to their largest part, refuse doubles and garbage.

    If the folder holds the store of the same library (by its bytes) and settings, that is opened; if the store is not
    finished, it is gone on with. What crashes RDKit, or takes it too long, is refused as well.

    Args:
        library: of any length; a few thousand lines of it are in memory at a time.
        folder: for the store; None for one that goes with the object, made in this process: for small libraries.
        scope: what the objective can be asked about.
        processes: how many look at molecules; by default one per core.
        observer: Receives the progress.

    Raises:
        ConfigurationError: there is not one readable molecule.
    """
    scope = scope or Scope()
    if folder is None:
        owner = _Temporary()
        _build(library, owner.folder, scope, 0, observer)
        return Candidates(owner.folder, processes=0, owner=owner)
    _build(library, folder, scope, _cores() if processes is None else processes, observer)
    return Candidates(folder, processes=processes)


def _build(library: Iterable[Entry], folder: Path, scope: Scope, processes: int, observer: Observer | None) -> None:
    asked = {"elements": sorted(scope.elements or ()), "largest": scope.max_heavy_atoms, "fingerprint": FINGERPRINT}
    # What has no digest, such as a generator, is read again.
    key = digest_of(asked, library.digest()) if isinstance(library, Library) else ""
    if key and (state := store.read_state(folder)).get("key") == key and state["complete"]:
        return
    with store.Writer(folder, key) as writer:
        lines = islice(library, writer.read, None)
        with closing(_mapped(partial(look_at, scope=scope), _chunks(lines), processes)) as answers:
            safe = time.monotonic()
            for answer in answers:
                _take(writer, answer)
                if observer is not None:
                    observer(writer.read, writer.candidates, writer.refused)
                if time.monotonic() - safe >= _CHECKPOINT:
                    writer.checkpoint()
                    safe = time.monotonic()
        if not writer.candidates:
            raise ConfigurationError(f"The library has no readable molecule ({writer.refused} unreadable lines).")
        writer.checkpoint(complete=True)


def _take(writer: store.Writer, answer: Chunk | Spoilt[Entry]) -> None:
    """Write what came of some lines; doubles are refused here, where all others are known."""
    if isinstance(answer, Spoilt):
        why = "took RDKit too long" if answer.kind == "timeout" else "crashed RDKit"
        writer.refuse([refusal(answer.item, "parse", f"Reading it {why}.")])
        writer.read += 1
        return
    doubles = writer.add(
        writer.read + len(answer.entries) + len(answer.refused), answer.entries, answer.hashes, answer.fingerprints
    )
    rows = [refusal(entry, "duplicate", f"The same as number {first} of the library.") for entry, first in doubles]
    writer.refuse(sorted([*answer.refused, *rows], key=lambda row: row.molecule))


def _mapped(function: Callable[[list[T]], R], chunks: Iterable[list[T]], processes: int) -> Generator[R | Spoilt[T]]:
    if processes:
        yield from in_processes(function, chunks, processes=processes, timeout=_CHUNK_LIMIT, alone=_ALONE_LIMIT)
    else:
        yield from map(function, chunks)


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while chunk := list(islice(rest, _CHUNK)):
        yield chunk


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
