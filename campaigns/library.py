"""Libraries of molecules: streamed from `.smi` and `.csv` files, compressed or not."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from diaspora_parsl.errors import ConfigurationError

_NAMES = ("name", "id", "title", "compound_id", "molecule_id", "catalog_id", "zinc_id")


class Entry(NamedTuple):
    """One line of a library, not yet looked at."""

    molecule: int
    """Place in the library, from 0."""
    name: str
    smiles: str


def read_library(path: Path, smiles_column: str | None = None) -> Iterator[Entry]:
    """Stream a library; empty lines are skipped, everything else is an entry.

    Args:
        path: ``.smi`` (SMILES, blank, name) or ``.csv`` (with a header), either of them also as ``.gz``.
        smiles_column: the column of a ``.csv`` that holds the SMILES; by default the one headed ``smiles``.

    Raises:
        ConfigurationError: the file cannot be read; the message says what to write instead.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    packed = suffixes[-1:] == [".gz"]
    kind = (suffixes[:-1] if packed else suffixes)[-1:]
    if kind not in ([".smi"], [".smiles"], [".csv"]):
        raise ConfigurationError(
            f"The library {path.name} has an unknown format. Write a .smi or .csv file, or .gz of it."
        )
    try:
        with _open(path, packed=packed) as lines:
            yield from _csv(lines, path, smiles_column) if kind == [".csv"] else _smi(lines)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigurationError(f"The library {path} cannot be read: {error}.") from error


def _open(path: Path, *, packed: bool) -> IO[str]:
    if packed:
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="replace", newline="")
    return path.open(encoding="utf-8-sig", errors="replace", newline="")


def _smi(lines: IO[str]) -> Iterator[Entry]:
    count = 0
    for line in lines:
        smiles, _, name = line.strip().partition(" " if "\t" not in line else "\t")
        if not smiles or (count == 0 and smiles.lower() == "smiles"):
            continue
        yield Entry(count, name.strip() or f"molecule {count + 1}", smiles)
        count += 1


def _csv(lines: IO[str], path: Path, smiles_column: str | None) -> Iterator[Entry]:
    reader = csv.DictReader(line.replace("\0", "") for line in lines)
    header = list(reader.fieldnames or [])
    column = _pick(header, (smiles_column,) if smiles_column else ("smiles", "canonical_smiles"))
    if column is None:
        wanted = f'"{smiles_column}"' if smiles_column else '"smiles"'
        raise ConfigurationError(
            f"{path.name} has no column {wanted}. Name one of its columns with --smiles-column: {', '.join(header)}."
        )
    names = _pick(header, _NAMES)
    count = 0
    for row in reader:
        smiles = (row[column] or "").strip()
        if not smiles and not any(row.values()):
            continue
        yield Entry(count, (row[names] or "").strip() if names else f"molecule {count + 1}", smiles)
        count += 1


def _pick(header: list[str], wanted: tuple[str, ...]) -> str | None:
    by_lower = {name.strip().lower(): name for name in reversed(header)}
    return next((by_lower[name.lower()] for name in wanted if name.lower() in by_lower), None)
