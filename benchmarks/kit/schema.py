"""What a run of an experiment leaves as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

#: Raise it when a field changes its meaning.
VERSION = 1

Status = Literal["ok", "hangs", "too slow", "failed", "not installed"]
Value = float | str | None


class Measurement(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One case at one peer.

    Args:
        peer: "pool", "plain", "dask" or "ray".
        variant: which case of the experiment, such as "retries=3".
        status: "hangs" is a case that told its figures and then did not end, "too slow" one that told none in time.
        detail: why it is not "ok".
        seconds: from the start of its process to the end of it.
        exit_seconds: from the last figure to the end of its process; None if it did not end by itself.
        processes_left: how many of its processes still ran three seconds after its end; they were killed then.
        load: of the machine just before it, by what else ran: processes that wanted a core, over the last minute.
        figures: by name; the experiment says what each is.
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
        """A figure that is a number, or None if it was not measured."""
        value = self.figures.get(name)
        return float(value) if isinstance(value, int | float) else None


class Report(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One experiment, all of its cases measured one after the other on one machine.

    Args:
        experiment: its name.
        date: of its start, UTC.
        is_quick: a short form of it, good for trying, not for judging.
        note: what a reader should know about the circumstances.
        machine: system, processor, cores, versions.
        measurements: in the order in which they were made.
    """

    experiment: str
    date: str
    is_quick: bool
    note: str
    machine: dict[str, str]
    measurements: tuple[Measurement, ...]
    version: int = VERSION

    def of(self, peer: str, variant: str | None = None) -> list[Measurement]:
        """The measurements of one peer, of one variant if given."""
        return [m for m in self.measurements if m.peer == peer and variant in {None, m.variant}]


def write(report: Report, folder: Path) -> Path:
    """Write it to ``folder/EXPERIMENT.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{report.experiment}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    return path


def read(path: Path) -> Report:
    """Read one back.

    Raises:
        msgspec.ValidationError: it is none, or of another version.
    """
    report = msgspec.json.decode(path.read_bytes(), type=Report)
    if report.version != VERSION:
        raise msgspec.ValidationError(f"{path} is of version {report.version}, not {VERSION}: run it again.")
    return report
