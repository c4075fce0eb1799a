"""Lower bound of the makespan under a fault script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from diaspora_parsl.testing import faults as f
from diaspora_parsl.testing.simulation.scenario import SimEndpoint, SimTask


def surviving_makespan(endpoints: Sequence[SimEndpoint], tasks: Sequence[SimTask], script: Iterable[f.Fault]) -> float:
    """Return the seconds in which all usable slots, at their current speed, can do all the work.

    An endpoint contributes its slots times its speed, divided by the factor of `Slow`, without black-hole nodes, and
    nothing while it is killed, frozen or fails every function. The bound ignores detection, restart and repeated work.
    """
    work = sum(task.seconds for task in tasks)
    changes: list[tuple[float, float]] = []
    of: dict[str, list[f.Fault]] = {spec.label: [] for spec in endpoints}
    for fault in script:
        if isinstance(fault, f.Kill | f.Freeze | f.Slow | f.BlackHole | f.WrongEnvironment | f.OutOfMemory):
            of[fault.endpoint].append(fault)
    for spec in endpoints:
        power = 0.0
        for at, now in _steps(spec, of[spec.label]):
            changes.append((at, now - power))
            power = now
    changes.sort()
    power, done, at = 0.0, 0.0, 0.0
    for change, delta in changes:
        gained = power * (change - at)
        if done + gained >= work:
            break
        done, at, power = done + gained, change, power + delta
    return at + (work - done) / power if power > 1e-9 else float("inf")  # noqa: PLR2004 - rounding errors


def _steps(spec: SimEndpoint, faults: Sequence[f.Fault]) -> list[tuple[float, float]]:
    """Return the times at which the power of an endpoint changes, with the new power."""
    windows = [(fault.at, _until(fault), fault) for fault in faults]
    times = sorted({0.0, *(at for at, _, _ in windows), *(until for _, until, _ in windows)})
    return [(at, _power(spec, [fault for start, end, fault in windows if start <= at < end])) for at in times]


def _power(spec: SimEndpoint, faults: Sequence[f.Fault]) -> float:
    power = spec.slots * spec.speed
    holes = {fault.node for fault in faults if isinstance(fault, f.BlackHole)}
    power *= 1.0 - len(holes) / spec.nodes
    slow = [fault for fault in faults if isinstance(fault, f.Slow)]
    if slow:
        power /= slow[-1].factor
    return 0.0 if any(_is_useless(fault) for fault in faults) else power


def _is_useless(fault: f.Fault) -> bool:
    """Return whether the fault stops all useful work of the endpoint."""
    if isinstance(fault, f.WrongEnvironment | f.OutOfMemory):
        return fault.function is None
    return isinstance(fault, f.Kill | f.Freeze)


def _until(fault: f.Fault) -> float:
    until: float | None = getattr(fault, "until", None)
    return fault.at if until is None else until
