"""Input and result of a simulation: endpoints, tasks, report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.testing import faults as f

#: Heartbeat delays on a loaded machine in seconds, equally likely. Measured on 18,000 wake-ups on 2 cores with 4 to 11
#: runnable processes; each class has its upper bound (the latest of all 18,000 counts as 1 of 1,000).
LOADED: Final = (0.0002,) * 900 + (0.002,) * 50 + (0.0075,) * 40 + (0.035,) * 9 + (0.25,)
#: As `LOADED`, but one wake-up in 10,000 (about every three hours) stalls for 1 to 2.5 seconds.
STALLING: Final = LOADED * 9 + LOADED[:-1] + (1.0,) + LOADED[1:-1] + (1.5, 2.0, 2.5)


class SimEndpoint(Struct, frozen=True, kw_only=True):
    """One simulated endpoint. Times are virtual seconds."""

    label: str
    slots: int = 4
    """Attempts that run at a time, over all nodes."""
    nodes: int = 1
    """Number of nodes. An attempt starts on a random free node, as with an HTEX interchange."""
    speed: float = 1.0
    """Tasks take their ``seconds`` divided by this."""
    site: str = ""
    start_delay: float = 1.0
    """Seconds from the start of a generation until its workers are connected."""
    notice: float | None = 1.0
    """Seconds from its death until the endpoint reports it; None: only missing heartbeats show it."""
    heartbeat: float | None = None
    """Seconds between its heartbeats on the fabric; None: no agent runs."""
    stragglers: float = 0.0
    """Share of the attempts that take ``straggling`` times as long, drawn per attempt."""
    straggling: float = 10.0
    lateness: tuple[float, ...] = ()
    """Heartbeat delays in seconds to draw from, such as `LOADED`; empty: no delay."""
    maintenance: tuple[tuple[float, float], ...] = ()
    """Maintenance windows (begin, end) announced at the start. Add a fault to simulate the outage itself."""

    def __post_init__(self) -> None:
        if self.slots < 1 or self.nodes < 1 or self.slots % self.nodes:
            raise ConfigurationError(
                f"SimEndpoint({self.label!r}, slots={self.slots}, nodes={self.nodes}): give every node as many slots"
            )


class SimTask(Struct, frozen=True, kw_only=True):
    """One simulated task."""

    function: str = "work"
    seconds: float = 1.0
    """Run time in seconds on an endpoint of speed 1."""
    at: float = 0.0
    """Time of its submission."""
    eligible: frozenset[str] | None = None
    """Labels of the endpoints allowed to run it; None: all."""
    priority: float = 0.0
    idempotent: bool = False
    """Whether it may run twice, even at the same time."""
    raises: bool = False
    """Whether it raises an exception."""
    kills: bool = False
    """Whether it kills the worker that runs it."""


class Detection(Struct, frozen=True):
    """Time to detect a fault."""

    fault: f.Fault
    seconds: float
    """Seconds from the fault until the pool rerouted the endpoint's tasks or declared it dead."""


class Report(Struct, frozen=True, kw_only=True):
    """Result of a run."""

    submitted: int
    resolved: int
    rejected: int
    lost: int
    """Tasks that never settled."""
    twice: int
    """Tasks that settled more than once."""
    makespan: float
    """Virtual seconds until the last task settled."""
    ideal_makespan: float
    """Total work divided by the power of all slots: a lower bound without faults."""
    surviving_makespan: float
    """Lower bound of the makespan under these faults, see `capacity`."""
    attempts: int
    executions: int
    """Attempts that ran to their end, needed or not."""
    useful_seconds: float
    """Worker seconds of attempts whose outcome was delivered."""
    wasted_seconds: float
    """Worker seconds of all other attempts: destroyed by a fault, or no longer needed."""
    rerouted: int
    late: int
    hedged: int
    """Number of hedged attempts."""
    latency_p99: float
    """99th percentile of the seconds from submission to settlement."""
    detections: tuple[Detection, ...]
    false_suspicions: int
    """Number of times a healthy endpoint was suspected or declared dead, without `precautions`."""
    precautions: int
    """Number of times a healthy endpoint was suspected because others of its site were lost."""
    quarantined: int
    """Number of times an endpoint was declared suspect or quarantined, rightly or not."""
    endpoint_seconds: float
    """Virtual seconds without a fault, summed over all endpoints."""
    steps: int
    """Number of stimuli that the core handled."""
    digest: str
    """Hash of every dispatch and settlement with its time; equal for equal runs."""

    @property
    def settled(self) -> int:
        """Number of settled tasks."""
        return self.submitted - self.lost

    @property
    def wasted(self) -> int:
        """Number of attempts that ran to their end beyond one per settled task."""
        return max(0, self.executions - self.settled)

    def detection_times(self, kind: type[f.Fault] | None = None) -> list[float]:
        """Return the detection times of faults (of one kind) in seconds, ascending."""
        return sorted(d.seconds for d in self.detections if kind is None or isinstance(d.fault, kind))


def quantile(rising: Sequence[float], share: float) -> float | None:
    """Return the value below which this share of ascending values lies; None for no values."""
    return rising[min(len(rising) - 1, int(share * len(rising)))] if rising else None
