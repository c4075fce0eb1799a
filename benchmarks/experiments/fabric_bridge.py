"""A bridge between two fabrics: how fast, how late, and how it catches up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.kit.experiment import Case, Column, Experiment, Target, at_least, at_most, every

#: Events per second that a bridge must carry.
GOAL = 20_000


def cases(quick: bool) -> list[Case]:  # noqa: FBT001 - see Experiment
    """What waits, what comes steadily, and what waited behind a line that was cut."""
    waiting, seconds, away = (100_000, 5, 8) if quick else (400_000, 30, 60)
    return [
        Case("pool", f"{waiting:,} events wait", {"part": "backlog", "given": [waiting]}, 240),
        Case("pool", f"{GOAL:,} events/s as they happen", {"part": "steady", "given": [GOAL, seconds]}, 240),
        Case("pool", f"its line is cut for {away} s, at 8,000 events/s", {"part": "cut", "given": [8_000, away]}, 360),
    ]


def measure(spec: dict[str, Any], record: Callable[[dict[str, Any]], None]) -> None:
    """As ``benchmarks/fabric_bridge.py`` does."""
    from benchmarks import fabric_bridge  # noqa: PLC0415 - its packages are not where other peers live

    record(getattr(fabric_bridge, spec["part"])(*spec["given"]))


EXPERIMENT = Experiment(
    name="fabric-bridge",
    title="Bridge between two fabrics",
    asks=(
        "Events of 420 bytes from one embedded fabric to another, over a line that is a proxy on the same machine. "
        "Both servers, the producer, the bridge and a reader at the other end share the cores. After a cut, the speed "
        "is that from the first event that arrives until none is more than a second late, while others go on to happen."
    ),
    cases=cases,
    columns=(
        Column("rate", "events/s", "{:,.0f}"),
        Column("cpu_us", "CPU of the bridge, µs/event", "{:.1f}"),
        Column("delay_p50_ms", "delay, ms (p50)", "{:.0f}"),
        Column("delay_p99_ms", "delay, ms (p99)", "{:.0f}"),
        Column("backlog", "waiting after the cut", "{:,.0f}"),
        Column("first_s", "back after, s"),
        Column("caught_up_s", "caught up after, s"),
        Column("events", "events", "{:,.0f}"),
        Column("lost", "lost", "{:.0f}"),
        Column("twice", "twice", "{:.0f}"),
        Column("unordered", "out of order", "{:.0f}"),
    ),
    targets=(
        Target(
            f"at least {GOAL:,} events/s, after a cut too",
            lambda r: every(r, "pool", at_least("rate", GOAL), lambda variant: "as they happen" not in variant),
        ),
        Target("no event lost", lambda r: every(r, "pool", at_most("lost", 0))),
        Target("none out of order", lambda r: every(r, "pool", at_most("unordered", 0))),
    ),
)
