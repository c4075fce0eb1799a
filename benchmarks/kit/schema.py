"""The JSON report of an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

#: Version of the format; raise it when a field changes its meaning.
VERSION = 1

Status = Literal["ok", "hangs", "too slow", "failed", "not installed"]
Value = float | str | None


class Measurement(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The measurement of one case.

    Args:
        peer: One of "pool", "plain", "dask" or "ray".
        variant: Case of the experiment, such as "retries=3".
        status: "hangs": reported its figures but did not end; "too slow": reported no figures in time.
        detail: Reason of a status other than "ok".
        seconds: Run time of its process.
        exit_seconds: Seconds from the last figure to the end of its process; None if it was killed.
        processes_left: Number of its processes that ran three seconds after its end, and were then killed.
        load: Load average of the machine over the minute before the case.
        figures: Figures by name, defined by the experiment.
    """

    peer: str
    variant: str
    status: Status
    detail: str = ""
    seconds: float = 0.0
    exit_seconds: float | None = None
    processes_left: int | None = None
    load: float | None = None
    figures: dict[str, Value] = {}

    def figure(self, name: str) -> float | None:
        """Return a numeric figure, or None if it was not measured."""
        value = self.figures.get(name)
        return float(value) if isinstance(value, int | float) else None


class Report(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All cases of one experiment, measured one after the other on one machine.

    Args:
        experiment: Name of the experiment.
        date: Time of its start, UTC.
        is_quick: Whether it ran in its quick form, which supports no conclusion.
        note: Remark for the reader.
        machine: System, processor, cores, versions.
        measurements: Measurements in the order of their run.
    """

    experiment: str
    date: str
    is_quick: bool
    note: str
    machine: dict[str, str]
    measurements: tuple[Measurement, ...]
    version: int = VERSION

    def of(self, peer: str, variant: str | None = None) -> list[Measurement]:
        """Return the measurements of one peer, or of one of its variants."""
        return [m for m in self.measurements if m.peer == peer and variant in {None, m.variant}]


def write(report: Report, folder: Path) -> Path:
    """Write a report to ``folder/EXPERIMENT.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{report.experiment}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    return path


def read(path: Path) -> Report:
    """Read a report.

    Raises:
        msgspec.ValidationError: The file is no report, or has another version.
    """
    report = msgspec.json.decode(path.read_bytes(), type=Report)
    if report.version != VERSION:
        raise msgspec.ValidationError(f"{path} is of version {report.version}, not {VERSION}: run it again.")
    return report
