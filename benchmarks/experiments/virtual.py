"""What takes too many endpoints or too long for one machine: the pool's decisions in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.kit.experiment import Case, Column, Experiment, Target, at_most, every
from benchmarks.kit.schema import Measurement

_CLUSTERED = "failures in clusters, whole sites among them"
_SEQUENCE = "all endpoints but one lost in sequence"
_FABRIC = "fabric away for ten minutes"
_LOADED = "no fault, heartbeats as late as on a loaded machine"
_STALLING = "no fault, heartbeats that stall"
_SEED = 1


def cases(quick: bool) -> list[Case]:  # noqa: FBT001 - see Experiment
    """Each part of ``benchmarks/simulate.py``."""
    scale = {"endpoints": 100, "tasks": 20_000} if quick else {"endpoints": 1000, "tasks": 1_000_000}
    months = {"months": 0.1 if quick else 1.0}
    limit = 120 if quick else 1800
    return [
        Case("pool", f"{_CLUSTERED}: {scale['endpoints']:,} endpoints", {"part": "scale", **scale}, limit),
        Case("pool", f"{_SEQUENCE}: 10 endpoints", {"part": "sequence", "endpoints": 10}, limit),
        Case("pool", f"{_FABRIC}: 20 endpoints", {"part": "fabric"}, limit),
        Case("pool", f"{_LOADED}: 20 endpoints", {"part": "loaded", **months}, limit),
        Case("pool", f"{_STALLING}: 20 endpoints", {"part": "stalling", **months}, limit),
    ]


def measure(spec: dict[str, Any], record: Callable[[dict[str, Any]], None]) -> None:
    """One part."""
    from benchmarks import simulate  # noqa: PLC0415 - its packages are not where other peers live
    from diaspora_parsl.testing.simulation.scenario import LOADED, STALLING  # noqa: PLC0415

    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "scale": lambda: simulate.at_scale(spec["endpoints"], spec["tasks"], _SEED),
        "sequence": lambda: simulate.one_after_another(spec["endpoints"], _SEED),
        "fabric": lambda: simulate.without_fabric(_SEED),
        "loaded": lambda: simulate.false_suspicions(spec["months"], LOADED, _SEED),
        "stalling": lambda: simulate.false_suspicions(spec["months"], STALLING, _SEED),
    }
    found = parts[spec["part"]]()
    if spec["part"] in {"loaded", "stalling"}:
        found["false_per_month"] = found["per_endpoint_month"]
    else:
        found.pop("endpoint_months", None)  # too few to say anything
    if "wasted_share" in found:
        found["wasted"] = 100 * found["wasted_share"]
    record(
        {name: value for name, value in found.items() if isinstance(value, int | float) and not isinstance(value, bool)}
    )


def _of(*kinds: str) -> Callable[[str], bool]:
    return lambda variant: variant.startswith(kinds)


def _is_whole(measurement: Measurement) -> bool:
    return measurement.figure("lost") == 0 and measurement.figure("twice") == 0 and measurement.figure("failed") == 0


def _is_fast(measurement: Measurement) -> bool:
    makespan, limit = measurement.figure("makespan"), measurement.figure("limit")
    return makespan is not None and limit is not None and makespan <= limit


EXPERIMENT = Experiment(
    name="virtual",
    title="In virtual time",
    asks=(
        "The same decisions in the simulator of `diaspora_parsl.testing`, where nobody tells of a death but silence."
        " Ideal is the time that the work needs on what is alive when. False suspicions are counted without any work,"
        " so that no result speaks for an endpoint."
    ),
    cases=cases,
    columns=(
        Column("tasks", "tasks", "{:,.0f}"),
        Column("faults", "faults", "{:,.0f}"),
        Column("lost", "lost", "{:.0f}"),
        Column("twice", "settled twice", "{:.0f}"),
        Column("makespan_over_ideal_surviving", "makespan over ideal", "{:.3f}"),
        Column("wasted", "wasted executions, %", "{:.2f}"),
        Column("detection_p99", "detection, s (p99)"),
        Column("suspected_or_quarantined", "suspected or quarantined", "{:.0f}"),
        Column("endpoint_months", "endpoint-months without a fault", "{:.2f}"),
        Column("false_per_month", "false suspicions per endpoint-month", "{:.2f}"),
    ),
    targets=(
        Target("every task settled, once", lambda r: every(r, "pool", _is_whole, _of(_CLUSTERED, _SEQUENCE, _FABRIC))),
        Target(
            "detection within 5 s (p99)",
            lambda r: every(r, "pool", at_most("detection_p99", 5), _of(_CLUSTERED, _SEQUENCE)),
        ),
        Target(
            "all endpoints but one lost: makespan at most 1.10 of ideal + detection",
            lambda r: every(r, "pool", _is_fast, _of(_SEQUENCE)),
        ),
        Target(
            "fabric away for ten minutes: nobody suspected",
            lambda r: every(r, "pool", at_most("suspected_or_quarantined", 0), _of(_FABRIC)),
        ),
        Target(
            "at most one false suspicion per endpoint-month on a loaded machine",
            lambda r: every(r, "pool", at_most("false_per_month", 1), _of(_LOADED)),
        ),
    ),
)
