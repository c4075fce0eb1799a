"""The files that a campaign leaves behind: ranked CSV, poses of the best, log of events."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Final

import pyarrow as pa
from meeko import PDBQTMolecule, RDKitMolCreate
from pyarrow import parquet
from rdkit import Chem

from diaspora_parsl.events import Event, encode

from ..records import Row

_ARROW: Final = {
    **dict.fromkeys(("molecule", "model", "attempts", "seed", "session", "pool_task", "pid"), pa.int64()),
    **dict.fromkeys(("score", "predicted", "submitted", "started", "ended", "seconds"), pa.float64()),
}
_COLUMNS: Final = (
    "rank",
    "molecule",
    "name",
    "smiles",
    "status",
    "detail",
    "score",
    "predicted",
    "model",
    "attempts",
    "seed",
    "session",
    "site",
    "host",
    "seconds",
    "submitted",
    "started",
    "ended",
    "pool_task",
)


def ranked(rows: Iterable[Row]) -> list[Row]:
    """The docked molecules, best first; ties in the order of the library."""
    return sorted((row for row in rows if row.score is not None), key=lambda row: (row.score or 0.0, row.molecule))


def write_ranked(path: Path, rows: Sequence[Row]) -> None:
    """Every molecule as a line of CSV: the docked ones by score, then what could not be docked, with the reason."""
    best = ranked(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        for rank, row in enumerate([*best, *(row for row in rows if row.score is None)], start=1):
            values = {name: getattr(row, name) for name in _COLUMNS[1:]}
            writer.writerow({"rank": rank if row.score is not None else "", **values})


def write_poses(path: Path, rows: Sequence[Row], count: int) -> int:
    """The poses of the best molecules as SDF, hydrogens included; returns how many were written."""
    best = [(rank, row) for rank, row in enumerate(ranked(rows), start=1) if row.pose][:count]
    with Chem.SDWriter(str(path)) as writer:
        for rank, row in best:
            molecule = RDKitMolCreate.from_pdbqt_mol(PDBQTMolecule(row.pose, skip_typing=True))[0]
            molecule.SetProp("_Name", row.name)
            for key, value in (("rank", rank), ("score_kcal_per_mol", row.score), ("smiles", row.smiles)):
                molecule.SetProp(key, str(value))
            molecule.SetProp("site", row.site)
            writer.write(molecule)
    return len(best)


def write_parquet(path: Path, rows: Sequence[Row]) -> None:
    """Every column of the ledger's molecules but the poses, in the order of the library."""
    names = [field.name for field in fields(Row) if field.name != "pose"]
    schema = pa.schema([(name, _ARROW.get(name, pa.string())) for name in names])
    columns = {name: [getattr(row, name) for row in rows] for name in names}
    parquet.write_table(pa.table(columns, schema=schema), path)


def write_events(path: Path, events: Iterable[Event]) -> None:
    """Add events as JSON lines, in the order in which they were read."""
    with path.open("ab") as file:
        for event in events:
            file.write(encode(event) + b"\n")
