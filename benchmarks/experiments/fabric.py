"""The fabric beside a bare client of the same server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.kit.experiment import Case, Column, Experiment, Target, at_least, at_most, every
from benchmarks.kit.schema import Measurement, Report


def cases(quick: bool) -> list[Case]:  # noqa: FBT001 - see Experiment
    """What telling costs, how much passes, how soon, and what kills lose."""
    seconds, rounds = (2, 1) if quick else (8, 5)
    kills = {"count": 100_000 if quick else 1_000_000, "per_second": 20_000, "kills": 5, "away": 0.3 if quick else 1.5}
    return [
        *(
            Case("pool", f"telling, server {how}", {"part": "emit", "how": how, "seconds": seconds}, 120)
            for how in ("up", "away", "slow")
        ),
        Case("pool", "how much", {"part": "throughput", "count": 50_000 if quick else 300_000, "rounds": rounds}, 600),
        Case("pool", "how soon", {"part": "latency", "count": 1000 if quick else 4000, "rounds": rounds}, 600),
        Case("pool", f"server killed {kills['kills']} times", {"part": "kill", **kills}, 600),
    ]


def measure(spec: dict[str, Any], record: Callable[[dict[str, Any]], None]) -> None:
    """As ``benchmarks/fabric.py`` does."""
    from benchmarks import fabric  # noqa: PLC0415 - its packages are not where other peers live

    wishes = {name: value for name, value in spec.items() if name not in {"part", "peer"}}
    record(getattr(fabric, spec["part"])(**wishes))


def _all(report: Report, figures: tuple[str, ...], check: Callable[[str], Callable[[Measurement], bool]],
         words: str) -> bool | None:  # fmt: skip
    """Whether every figure passes in every case whose name begins like that; None if there is none."""
    verdicts = [every(report, "pool", check(name), lambda variant: variant.startswith(words)) for name in figures]
    return None if None in verdicts else all(verdicts)


_P50, _P99 = ("steady_p50_us", "busy_p50_us"), ("steady_p99_us", "busy_p99_us")

EXPERIMENT = Experiment(
    name="fabric",
    title="Events beside a bare client",
    asks=(
        "Events of 420 bytes through a Valkey server, told by a publisher and heard by a reader, each in a process of "
        "its own; beside them redis-py alone with the same bytes on the same server. What telling costs is what the "
        "caller waits, at 500 events a second one by one and at 50,000 a second; a slow server takes up to 0.4 s for "
        "every answer. How much is from the first told to the last read; the bare client sends pipelines of 500 XADD "
        "and decodes nothing. How soon is from telling to hearing at 500 a second; the bare client sends each event "
        "at once. Killed is kill -9 of the server, back 1.5 s later, under 20,000 events a second, a tenth of them "
        "resource samples; lost, doubled and disordered are counted behind the reader, which drops doubles."
    ),
    cases=cases,
    columns=(
        Column("steady_p50_us", "one by one, µs (p50)"),
        Column("steady_p99_us", "one by one, µs (p99)"),
        Column("busy_p50_us", "50,000/s, µs (p50)"),
        Column("busy_p99_us", "50,000/s, µs (p99)"),
        Column("bare_rate", "bare, events/s", "{:,.0f}"),
        Column("fabric_rate", "fabric, events/s", "{:,.0f}"),
        Column("rate_ratio", "ratio", "{:.2f}"),
        Column("bare_p50_us", "bare, µs (p50)", "{:.0f}"),
        Column("fabric_p50_us", "fabric, µs (p50)", "{:.0f}"),
        Column("latency_ratio", "ratio of p50", "{:.2f}"),
        Column("bare_p99_us", "bare, µs (p99)", "{:.0f}"),
        Column("fabric_p99_us", "fabric, µs (p99)", "{:.0f}"),
        Column("told", "told", "{:,.0f}"),
        Column("lost", "state events lost", "{:.0f}"),
        Column("lost_samples", "samples lost", "{:.0f}"),
        Column("disordered", "out of order or twice", "{:.0f}"),
        Column("doubles", "doubles dropped by the reader", "{:.0f}"),
        Column("dropped", "dropped by the publisher", "{:.0f}"),
    ),
    targets=(
        Target("telling costs at most 10 µs (p50), server up, away or slow",
               lambda r: _all(r, _P50, lambda name: at_most(name, 10), "telling")),
        Target("and at most 50 µs (p99)", lambda r: _all(r, _P99, lambda name: at_most(name, 50), "telling")),
        Target("50,000 events a second are taken, and none dropped",
               lambda r: _all(r, ("dropped",), lambda name: at_most(name, 0), "telling")),
        Target("at least 0.8 of what a bare pipelined client passes",
               lambda r: _all(r, ("rate_ratio",), lambda name: at_least(name, 0.8), "how much")),
        Target("heard at most 1.5 times as late as by a bare client (p50)",
               lambda r: _all(r, ("latency_ratio",), lambda name: at_most(name, 1.5), "how soon")),
        Target("no state event lost, twice or out of order, the server killed five times",
               lambda r: _all(r, ("lost", "disordered"), lambda name: at_most(name, 0), "server killed")),
    ),
)  # fmt: skip
