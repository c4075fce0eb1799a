from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies

from diaspora_parsl.campaigns.sandbox.pool import in_processes
from diaspora_parsl.campaigns.screening.library import candidates as module
from diaspora_parsl.campaigns.screening.library.candidates import Candidates, find_candidates
from diaspora_parsl.campaigns.screening.library.combinatorial import combinatorial_library
from diaspora_parsl.campaigns.screening.library.reader import read_library
from diaspora_parsl.campaigns.screening.library.store import STATE, Seen
from diaspora_parsl.campaigns.screening.objectives import Scope, hash_of
from diaspora_parsl.campaigns.screening.objectives.docking import ELEMENTS
from diaspora_parsl.campaigns.screening.records import Entry
from diaspora_parsl.errors import ConfigurationError

VINA = Scope(elements=ELEMENTS, max_heavy_atoms=80)
GOOD = [entry.smiles for entry in combinatorial_library(380)]
GARBAGE = [
    "not a molecule", "", "C1CC", "[Pt](Cl)(Cl)(N)N", "[Na+].[Cl-]", "C1" + "CCO" * 40 + "C1", "CC" * 4000,
    "c1ccccc1" * 90, "\u03b1-D-glucose", GOOD[3], "Cl." + GOOD[4], "[Na+].CC(=O)[O-]", "F[C@@H](Cl)Br.[K+]",
    "C(C)(C)(C)(C)C", "**", "[U]", "cc", "O=C=O.O.O.O", ")(", "[H][H]",
]  # fmt: skip


def mixed() -> list[str]:
    """A library with five per cent of garbage, in between."""
    lines = list(GOOD)
    for place, garbage in enumerate(GARBAGE):
        lines.insert(place * 19, garbage)
    return lines


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
    assert "number 0" in next(iter(found.refused)).detail
    assert found.fingerprints.shape == (3, 256)


def test_a_library_of_garbage_says_so() -> None:
    with pytest.raises(ConfigurationError, match="no readable molecule"):
        find_candidates([Entry(0, "a", "garbage")])


@pytest.mark.parametrize("processes", [0, 2])
def test_five_per_cent_of_garbage_are_accounted_for(tmp_path: Path, processes: int) -> None:
    path = tmp_path / "library.smi"
    path.write_text("".join(f"{smiles}\tm{number}\n" for number, smiles in enumerate(mixed())))
    reported: list[tuple[int, int, int]] = []
    found = find_candidates(
        read_library(path), tmp_path / "store", scope=VINA, processes=processes,
        observer=lambda *numbers: reported.append(numbers),
    )  # fmt: skip
    rows = list(found.refused)
    numbers = [entry.molecule for entry in found.entries] + [row.molecule for row in rows]
    assert sorted(numbers) == list(range(400))
    assert reported[-1] == (400, len(found), len(found.refused))
    assert Counter(row.status for row in rows) == {"parse": 7, "prepare": 7, "duplicate": 2}
    assert all(row.detail and len(row.smiles) < 1_100 for row in rows)
    assert [row.molecule for row in rows] == sorted(row.molecule for row in rows)
    assert {"CC(=O)[O-]", "F[C@@H](Cl)Br", "O=C=O"} <= {entry.smiles for entry in found.entries}
    assert [hash_of(entry.smiles) for entry in found.entries] == found.hashes.tolist()
    assert found.fingerprints.shape == (len(found), 256)
    assert found.entries[-1] == found.entries[len(found) - 1]
    assert found.entries[2:4] == [found.entries[2], found.entries[3]]
    with pytest.raises(IndexError):
        _ = found.entries[len(found)]


def test_the_same_library_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "library.smi"
    path.write_text("CCO a\nCCN b\n")
    first = find_candidates(read_library(path), tmp_path / "store", processes=0)
    assert first.properties(["mw"]).shape == (2, 1)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("read again")

    with monkeypatch.context() as patch:
        patch.setattr(module, "look_at", refuse)
        again = find_candidates(read_library(path), tmp_path / "store", processes=0)
        assert list(again.entries) == [(0, "a", "CCO"), (1, "b", "CCN")]
        with pytest.raises(AssertionError, match="read again"):
            find_candidates(read_library(path), tmp_path / "store", scope=VINA, processes=0)
    path.write_text("CCCl c\n")
    other = find_candidates(read_library(path), tmp_path / "store", processes=0)
    assert list(other.entries) == [(0, "c", "CCCl")]
    assert not list(other.folder.glob("property-*"))


def test_a_build_that_was_killed_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "library.smi"
    path.write_text("".join(f"{smiles} m{number}\n" for number, smiles in enumerate(mixed())))
    whole = find_candidates(read_library(path), tmp_path / "whole", scope=VINA, processes=0)
    monkeypatch.setattr(module, "_CHUNK", 30)
    monkeypatch.setattr(module, "_CHECKPOINT", 0.0)

    def die(read: int, _candidates: int, _refused: int) -> None:
        if read == 210:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_candidates(read_library(path), tmp_path / "store", scope=VINA, processes=0, observer=die)
    state = json.loads((tmp_path / "store" / STATE).read_text())
    assert (state["read"], state["complete"]) == (180, False)
    with pytest.raises(ConfigurationError, match="no whole store"):
        Candidates(tmp_path / "store")
    reads: list[int] = []
    again = find_candidates(
        read_library(path), tmp_path / "store", scope=VINA, processes=0,
        observer=lambda read, *_: reads.append(read),
    )  # fmt: skip
    assert reads[0] == 210
    assert list(again.entries) == list(whole.entries)
    assert list(again.refused) == list(whole.refused)
    assert np.array_equal(again.fingerprints, whole.fingerprints)
    assert again.hashes.tolist() == whole.hashes.tolist()


EXPLODING = """
import os, signal, time

def explode(lines):
    if "die" in lines:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "hang" in lines:
        time.sleep(600)
    if "raise" in lines:
        raise ValueError("no")
    return len(lines)

if __name__ == "__main__":
    from diaspora_parsl.campaigns.sandbox.pool import Spoilt, in_processes
    from exploding import explode  # under the name that the processes know
    chunks = [["a", "b", "c"], ["d", "die"], ["hang"], ["f", "raise"]]
    for one in in_processes(explode, chunks, processes=2, timeout=3.0, alone=3.0):
        print(f"{one.kind} {one.item}" if isinstance(one, Spoilt) else one)
"""


def test_what_crashes_or_hangs_the_code_is_found(tmp_path: Path) -> None:
    (tmp_path / "exploding.py").write_text(EXPLODING)
    done = subprocess.run(
        [sys.executable, "exploding.py"], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stdout.splitlines() == ["3", "1", "crash die", "timeout hang", "1", "raised raise"]


def test_processes_end_when_nobody_listens_any_more() -> None:
    answers = in_processes(len, ([str(number)] * 3 for number in range(10_000)), processes=2, timeout=60, alone=60)
    assert next(answers) == 3
    answers.close()  # and the fixture of every test sees that nothing is left


def test_properties_and_scaffolds(tmp_path: Path) -> None:
    smiles = ["CCO", "c1ccccc1C", "c1ccccc1CC", "C1CCCCC1N"]
    lines = [Entry(number, "", one) for number, one in enumerate(smiles)]
    for found in (find_candidates(lines), find_candidates(lines, tmp_path / "store", processes=1)):
        values = found.properties(["qed", "mw", "heavy_atoms"])
        assert values.shape == (4, 3)
        assert values[0].tolist() == pytest.approx([0.407, 46.07, 3], abs=0.01)
        groups = found.scaffolds()
        assert groups[1] == groups[2]
        assert len(set(groups.tolist())) == 3
        with pytest.raises(ConfigurationError, match="beauty cannot be computed"):
            found.properties(["beauty"])
    assert find_candidates(lines, tmp_path / "store").properties(["mw"])[0] == pytest.approx(46.07, abs=0.01)


@given(strategies.lists(strategies.lists(strategies.integers(0, 40), max_size=12)))
def test_the_first_of_a_kind_is_known(chunks: list[list[int]]) -> None:
    seen, known = Seen(), dict[int, int]()
    number = 0
    for chunk in chunks:
        numbers = list(range(number, number + len(chunk)))
        expected = []
        for key, one in zip(chunk, numbers, strict=True):
            expected.append(known.get(key, -1))
            known.setdefault(key, one)
        found = seen.add(np.array(chunk, np.uint64), np.array(numbers, np.int64))
        assert found.tolist() == expected
        number += len(chunk)
        seen._merge()
