"""What an experiment leaves can be read back, and nothing else is taken for it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from benchmarks.experiments.makespan import ideal_seconds
from benchmarks.kit import schema
from benchmarks.kit.schema import Measurement, Report


def report(**changes: object) -> Report:
    fields: dict[str, object] = {
        "experiment": "doomed", "date": "2026-01-02T03:04:05+00:00", "is_quick": True, "note": "", "machine": {},
        "measurements": (
            Measurement(peer="pool", variant="a", status="ok", figures={"x": 1.5, "why": "so", "none": None}),
            Measurement(peer="plain", variant="a", status="hangs", processes_left=3),
        ),
    }  # fmt: skip
    return Report(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_report_survives_its_file(tmp_path: Path) -> None:
    path = schema.write(report(), tmp_path / "new")
    assert path.name == "doomed.json"
    assert schema.read(path) == report()


def test_another_version_is_refused(tmp_path: Path) -> None:
    path = schema.write(report(version=schema.VERSION + 1), tmp_path)
    with pytest.raises(msgspec.ValidationError, match="run it again"):
        schema.read(path)


@pytest.mark.parametrize("damage", [('"ok"', '"fine"'), ('"peer"', '"pear"'), ('"a"', "7")])
def test_what_is_no_report_is_refused(tmp_path: Path, damage: tuple[str, str]) -> None:
    path = schema.write(report(), tmp_path)
    path.write_text(path.read_text().replace(*damage, 1))
    with pytest.raises(msgspec.ValidationError):
        schema.read(path)


def test_only_numbers_are_figures() -> None:
    measurement = report().measurements[0]
    assert measurement.figure("x") == 1.5
    assert measurement.figure("why") is None
    assert measurement.figure("none") is None
    assert measurement.figure("absent") is None


def test_measurements_are_found_by_peer_and_variant() -> None:
    assert [m.peer for m in report().of("pool")] == ["pool"]
    assert report().of("pool", "b") == []


@pytest.mark.parametrize(
    ("work", "losses", "ideal"),
    [
        (16.0, [], 2.0),  # four sites of two workers
        (16.0, [1.0], 1.0 + 8 / 6),
        (100.0, [5.0, 10.0, 15.0], 20.0),
        (8.0, [1.0, 2.0], 1.0),  # done before anything is lost
    ],
)
def test_ideal_time_is_that_of_what_survives(work: float, losses: list[float], ideal: float) -> None:
    assert ideal_seconds(work, losses, sites=4, workers=2) == pytest.approx(ideal)
