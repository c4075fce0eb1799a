from __future__ import annotations

import gzip
from itertools import islice
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from pyarrow import parquet

from diaspora_parsl.campaigns.screening.library.candidates import find_candidates
from diaspora_parsl.campaigns.screening.library.combinatorial import building_blocks, combinatorial_library
from diaspora_parsl.campaigns.screening.library.reader import read_library
from diaspora_parsl.campaigns.screening.records import Entry
from diaspora_parsl.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

SMI = "smiles name\nCCO ethanol\n\nc1ccccc1\tbenzene, pure\nnonsense\n"
CSV = 'ID,Smiles,note\nx1,CCO,"a, b"\n,c1ccccc1,\n\nx3,,empty\nx4,nonsense,\n'


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("suffix", "text", "expected"),
    [
        (
            ".smi",
            SMI,
            [("ethanol", "CCO"), ("molecule 2", ""), ("benzene, pure", "c1ccccc1"), ("molecule 4", "nonsense")],
        ),
        (".csv", CSV, [("x1", "CCO"), ("molecule 2", "c1ccccc1"), ("molecule 3", ""), ("x3", ""), ("x4", "nonsense")]),
    ],
)
def test_formats(tmp_path: Path, suffix: str, text: str, expected: list[tuple[str, str]], *, packed: bool) -> None:
    path = tmp_path / f"library{suffix}{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    assert list(read_library(path)) == [(number, *rest) for number, rest in enumerate(expected)]


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
        ("library.parquet.gz", b"", "Write a .smi or .csv"),
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


def test_a_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "library.parquet"
    parquet.write_table(pa.table({"ID": [7, None, 9], "smiles": ["CCO", None, "C"], "x": [1.0, 2.0, 3.0]}), path)
    assert list(read_library(path)) == [(0, "7", "CCO"), (1, "molecule 2", ""), (2, "9", "C")]
    with pytest.raises(ConfigurationError, match="--smiles-column: ID, smiles, x"):
        list(read_library(path, "structure"))
    path.write_bytes(b"PAR1")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        list(read_library(path))


LAST = [("CC,c", "molecule 3"), ("N", "d")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('smiles,name\nCCO,"a, ""b"""\nC,"two\nlines"\n', [("CCO", 'a, "b"'), ("C", "two\nlines")]),
        ('smiles,name\n"CCO,a\nC,b\nCC,c\n', [("CCO,a", "molecule 1"), ("C", "b"), ("CC", "c")]),
        ('smiles,name\n"CCO,a\nC,b\n"CC,c\nN,d\n', [("CCO,a", "molecule 1"), ("C", "b"), *LAST]),
        ("smiles;name\nCCO;a\n", [("CCO", "a")]),
        ("name\tSMILES\na\tCCO\nb\n", [("CCO", "a"), ("", "b")]),
    ],
)  # fmt: skip
def test_quotes_and_delimiters(tmp_path: Path, text: str, expected: list[tuple[str, str]]) -> None:
    path = tmp_path / "library.csv"
    path.write_text(text)
    assert [(entry.smiles, entry.name) for entry in read_library(path)] == expected


def test_a_quote_that_is_never_closed_costs_one_line(tmp_path: Path) -> None:
    path = tmp_path / "library.csv"
    path.write_text('smiles,name\n"oops,0\n' + "".join(f"C,{number}\n" for number in range(1, 100_000)))
    entries = list(read_library(path))
    assert len(entries) == 100_000
    assert entries[-1] == (99_999, "99999", "C")


def test_the_digest_is_of_what_is_read(tmp_path: Path) -> None:
    one, other = tmp_path / "a.csv", tmp_path / "b.csv"
    one.write_text("smiles,alt\nC,CC\n")
    other.write_bytes(one.read_bytes())
    assert read_library(one).digest() == read_library(other).digest()
    assert read_library(one).digest() != read_library(one, "alt").digest()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_library(tmp_path / "nowhere.smi").digest()


def test_the_shipped_library_is_distinct_and_deterministic() -> None:
    first = list(combinatorial_library(150))
    assert first == list(combinatorial_library(150))
    assert [entry.molecule for entry in first] == list(range(150))
    assert not find_candidates(first).refused
    assert len(building_blocks("acid")) * len(building_blocks("amine")) > 3000
