"""Libraries of molecules: streamed from `.smi`, `.csv` and `.parquet` files, the first two also compressed."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import IO, Final

from diaspora_parsl.errors import ConfigurationError

from ..records import Entry

_NAMES = ("name", "id", "title", "compound_id", "molecule_id", "catalog_id", "zinc_id")
_KINDS: Final = {".smi": "smi", ".smiles": "smi", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
#: Upper bound of the lines of a quoted CSV field. A quote that is not closed by then is part of the text.
_LONGEST_FIELD: Final = 20
_BATCH: Final = 10_000


@dataclass(frozen=True)
class Library:
    """A file of molecules, read again each time it is iterated over: every line is an entry, also an empty one.

    Args:
        path: ``.smi`` (SMILES, blank, name) or ``.csv`` (with a header), either also as ``.gz``, or ``.parquet``.
        smiles_column: the column of a ``.csv`` or ``.parquet`` with the SMILES; by default the one headed ``smiles``.

    Raises:
        ConfigurationError: the file cannot be read; the message says what to write instead.
    """

    path: Path
    smiles_column: str | None = None

    def __post_init__(self) -> None:
        if self._kind is None:
            raise ConfigurationError(
                f"The library {self.path.name} has an unknown format. Write a .smi or .csv file, or .gz of it, or a "
                ".parquet file."
            )

    @property
    def _packed(self) -> bool:
        return self.path.suffix.lower() == ".gz"

    @property
    def _kind(self) -> str | None:
        kind = _KINDS.get((self.path.with_suffix("") if self._packed else self.path).suffix.lower())
        return None if kind == "parquet" and self._packed else kind

    def __iter__(self) -> Iterator[Entry]:
        try:
            if self._kind == "parquet":
                yield from _parquet(self.path, self.smiles_column)
                return
            with _open(self.path, packed=self._packed) as lines:
                yield from _csv(lines, self.path, self.smiles_column) if self._kind == "csv" else _smi(lines)
        except (OSError, EOFError, zlib.error, csv.Error) as error:
            raise ConfigurationError(f"The library {self.path} cannot be read: {error}.") from error

    def digest(self) -> str:
        """Of the file's bytes and what is read of them: the same library, wherever it lies.

        Raises:
            ConfigurationError: the file cannot be read.
        """
        found = sha256(repr((self._kind, self._packed, self.smiles_column)).encode())
        try:
            with self.path.open("rb") as file:
                while block := file.read(1 << 20):
                    found.update(block)
        except OSError as error:
            raise ConfigurationError(f"The library {self.path} cannot be read: {error}.") from error
        return found.hexdigest()


def read_library(path: Path, smiles_column: str | None = None) -> Library:
    """The molecules of a file; see `Library`."""
    return Library(path, smiles_column)


def _open(path: Path, *, packed: bool) -> IO[str]:
    if packed:
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="replace", newline="")
    return path.open(encoding="utf-8-sig", errors="replace", newline="")


def _smi(lines: IO[str]) -> Iterator[Entry]:
    count = 0
    for line in lines:
        smiles, _, name = line.strip().partition(" " if "\t" not in line else "\t")
        if count == 0 and smiles.lower() == "smiles":
            continue
        yield Entry(count, name.strip() or f"molecule {count + 1}", smiles)
        count += 1


def _csv(lines: IO[str], path: Path, smiles_column: str | None) -> Iterator[Entry]:
    clean = (line.replace("\0", "") for line in lines)
    first = next(clean, "")
    delimiter = max(",;\t", key=first.count)
    header = next(csv.reader([first], delimiter=delimiter), [])
    column, names = _columns(header, path, smiles_column)
    for count, row in enumerate(_rows(clean, delimiter, len(header), column)):
        name = row[names].strip() if names is not None and names < len(row) else ""
        smiles = row[column].strip() if column < len(row) else ""
        yield Entry(count, name or f"molecule {count + 1}", smiles)


def _rows(lines: Iterator[str], delimiter: str, width: int, column: int) -> Iterator[list[str]]:
    """The rows of a CSV. A quote that is never closed spoils its own line, not the rest of the file."""
    ahead: deque[str] = deque()
    for line in iter(lambda: ahead.popleft() if ahead else next(lines, None), None):
        row = next(csv.reader([line], delimiter=delimiter), [])
        if line.count('"') % 2:
            ahead.extend(islice(lines, max(0, _LONGEST_FIELD - len(ahead))))
            joined = line
            for used, more in enumerate(ahead, start=1):
                joined += more
                if more.count('"') % 2:
                    whole = next(csv.reader(joined.splitlines(keepends=True), delimiter=delimiter), [])
                    if len(whole) == width and "\n" not in whole[column].strip():  # no SMILES goes over lines
                        row = whole
                        for _ in range(used):
                            ahead.popleft()
                    break
        yield row


def _parquet(path: Path, smiles_column: str | None) -> Iterator[Entry]:
    try:
        import pyarrow as pa  # noqa: PLC0415 - large, and needed for this format only
        from pyarrow import parquet  # noqa: PLC0415 - as above
    except ImportError as error:
        raise ConfigurationError(f"Reading {path.name} needs pyarrow: pip install pyarrow, or write a .csv.") from error
    try:
        with parquet.ParquetFile(path) as file:
            header = list(file.schema_arrow.names)
            column, names = _columns(header, path, smiles_column)
            wanted = [header[column], *([header[names]] if names is not None else [])]
            count = 0
            for batch in file.iter_batches(_BATCH, columns=wanted, use_threads=False):
                smiles = batch.column(header[column]).to_pylist()
                titles = batch.column(header[names]).to_pylist() if names is not None else [None] * len(smiles)
                for title, text in zip(titles, smiles, strict=True):
                    name = "" if title is None else str(title).strip()
                    yield Entry(count, name or f"molecule {count + 1}", "" if text is None else str(text).strip())
                    count += 1
    except pa.ArrowException as error:
        raise ConfigurationError(f"The library {path} cannot be read: {error}.") from error


def _columns(header: list[str], path: Path, smiles_column: str | None) -> tuple[int, int | None]:
    """Where SMILES and names stand."""
    column = _pick(header, (smiles_column,) if smiles_column else ("smiles", "canonical_smiles"))
    if column is None:
        wanted = f'"{smiles_column}"' if smiles_column else '"smiles"'
        raise ConfigurationError(
            f"{path.name} has no column {wanted}. Name one of its columns with --smiles-column: {', '.join(header)}."
        )
    return column, _pick(header, _NAMES)


def _pick(header: list[str], wanted: tuple[str, ...]) -> int | None:
    by_lower = {name.strip().lower(): place for place, name in reversed(list(enumerate(header)))}
    return next((by_lower[name.lower()] for name in wanted if name.lower() in by_lower), None)
