from __future__ import annotations

import gzip
from itertools import islice
from typing import TYPE_CHECKING

import pytest

from diaspora_parsl.campaigns.candidates import find_candidates
from diaspora_parsl.campaigns.combinatorial import building_blocks, combinatorial_library
from diaspora_parsl.campaigns.library import Entry, read_library
from diaspora_parsl.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

SMI = "smiles name\nCCO ethanol\n\nc1ccccc1\tbenzene, pure\nnonsense\n"
CSV = 'ID,Smiles,note\nx1,CCO,"a, b"\n,c1ccccc1,\n\nx3,,empty\nx4,nonsense,\n'


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("suffix", "text", "expected"),
    [
        (".smi", SMI, [(0, "ethanol", "CCO"), (1, "benzene, pure", "c1ccccc1"), (2, "molecule 3", "nonsense")]),
        (".csv", CSV, [(0, "x1", "CCO"), (1, "", "c1ccccc1"), (2, "x3", ""), (3, "x4", "nonsense")]),
    ],
)
def test_formats(tmp_path: Path, suffix: str, text: str, expected: list[object], *, packed: bool) -> None:
    path = tmp_path / f"library{suffix}{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    assert list(read_library(path)) == expected


def test_the_column_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "library.csv"
    path.write_text("structure,name\nCCO,ethanol\n")
    assert list(read_library(path, "Structure")) == [Entry(0, "ethanol", "CCO")]
    with pytest.raises(ConfigurationError, match=r'no column "smiles".*--smiles-column: structure, name'):
        list(read_library(path))


def test_reading_is_streamed(tmp_path: Path) -> None:
    path = tmp_path / "library.smi.gz"
    with gzip.open(path, "wt") as file:
        file.writelines(f"{'C' * (1 + number % 20)} m{number}\n" for number in range(50_000))
    assert [entry.name for entry in islice(read_library(path), 2)] == ["m0", "m1"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("library.sdf", b"", "Write a .smi or .csv"),
        ("library", b"", "Write a .smi or .csv"),
        ("library.smi.gz", b"not packed", "cannot be read"),
        ("library.csv.gz", gzip.compress(b"smiles\nCCO\n" * 99, mtime=0)[:-20], "cannot be read"),
        ("library.csv", b"", "no column"),
    ],
)
def test_unreadable_files_say_why(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=says):
        list(read_library(tmp_path / name))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        list(read_library(tmp_path / "nowhere.smi"))


def test_strange_bytes_are_a_molecule_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "library.smi"
    path.write_bytes(b"CCO ok\n\xff\xfe\x00C bad\n")
    found = find_candidates(read_library(path))
    assert [entry.smiles for entry in found.entries] == ["CCO"]
    assert [row.status for row in found.refused] == ["parse"]


def test_every_line_is_a_candidate_or_has_a_reason() -> None:
    lines = ["OCC", "CCO", "", "garbage", "[Na+].CC(=O)[O-]", "CCO.Cl", "C" * 300]
    found = find_candidates(Entry(number, f"m{number}", smiles) for number, smiles in enumerate(lines))
    assert [(entry.molecule, entry.smiles) for entry in found.entries] == [
        (0, "CCO"),
        (4, "CC(=O)[O-]"),
        (6, "C" * 300),
    ]
    assert [(row.molecule, row.status) for row in found.refused] == [
        (1, "duplicate"),
        (2, "parse"),
        (3, "parse"),
        (5, "duplicate"),
    ]
    assert "number 0" in found.refused[0].detail
    assert found.fingerprints.shape == (3, 256)


def test_a_library_of_garbage_says_so() -> None:
    with pytest.raises(ConfigurationError, match="no readable molecule"):
        find_candidates([Entry(0, "a", "garbage")])


def test_the_shipped_library_is_distinct_and_deterministic() -> None:
    first = list(combinatorial_library(150))
    assert first == list(combinatorial_library(150))
    assert [entry.molecule for entry in first] == list(range(150))
    assert not find_candidates(first).refused
    assert len(building_blocks("acid")) * len(building_blocks("amine")) > 3000
