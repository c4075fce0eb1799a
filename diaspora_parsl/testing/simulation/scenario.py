"""What a simulation runs, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.testing import faults as f

#: Seconds by which heartbeats are late on a loaded machine, equally likely: 18,000 wake-ups on 2 cores with 4 to 11
#: processes that want to run, sorted into classes, each with its upper bound (the one latest of 18,000 as 1 of 1,000).
LOADED: Final = (0.0002,) * 900 + (0.002,) * 50 + (0.0075,) * 40 + (0.035,) * 9 + (0.25,)
#: As `LOADED`, and one in 10,000 (about every three hours) stalls for one to two and a half seconds.
STALLING: Final = LOADED * 9 + LOADED[:-1] + (1.0,) + LOADED[1:-1] + (1.5, 2.0, 2.5)


class SimEndpoint(Struct, frozen=True, kw_only=True):
    """One simulated endpoint; times in seconds of virtual time."""

    label: str
    slots: int = 4
    """Attempts at once, on all of its nodes together."""
    nodes: int = 1
    """A free one is chosen at random, as an HTEX interchange does."""
    speed: float = 1.0
    """2.0 needs half the time."""
    site: str = ""
    start_delay: float = 1.0
    """From the start of a generation until its workers are connected."""
    notice: float | None = 1.0
    """From its death until the pool is told by its own evidence; None: it never is, only silence tells."""
    heartbeat: float | None = None
    """Interval of its heartbeats on the fabric; None: no agent runs there."""
    stragglers: float = 0.0
    """This share of the attempts takes ``straggling`` times as long, whichever tasks they are of."""
    straggling: float = 10.0
    lateness: tuple[float, ...] = ()
    """Delays of which one is drawn for each heartbeat, such as `LOADED`; none: they are on time."""
    maintenance: tuple[tuple[float, float], ...] = ()
    """Windows, from and to, that are announced at the start. Nothing happens there unless a fault makes it happen."""

    def __post_init__(self) -> None:
        if self.slots < 1 or self.nodes < 1 or self.slots % self.nodes:
            raise ConfigurationError(
                f"SimEndpoint({self.label!r}, slots={self.slots}, nodes={self.nodes}): give every node as many slots"
            )


class SimTask(Struct, frozen=True, kw_only=True):
    """One simulated task."""

    function: str = "work"
    seconds: float = 1.0
    """On an endpoint of speed 1."""
    at: float = 0.0
    """When it is submitted."""
    eligible: frozenset[str] | None = None
    """Labels of the endpoints that may run it; None: all."""
    priority: float = 0.0
    idempotent: bool = False
    """It may run twice, as python apps without output files may: a second attempt does no harm, not even beside the
    first."""
    raises: bool = False
    """It ends with an exception of its own."""
    kills: bool = False
    """It takes its worker with it, wherever it runs."""


class Detection(Struct, frozen=True):
    """How long a fault went unnoticed."""

    fault: f.Fault
    seconds: float
    """From the fault until the pool took the work of the endpoint away, or declared it dead."""


class Report(Struct, frozen=True, kw_only=True):
    """What came of a run."""

    submitted: int
    resolved: int
    rejected: int
    lost: int
    """Tasks that were never settled."""
    twice: int
    """Tasks that were settled more than once."""
    makespan: float
    """Virtual seconds until the last task was settled."""
    ideal_makespan: float
    """All work over all slots and their speed: no order of execution can be faster."""
    surviving_makespan: float
    """The same over what was alive when: no order of execution can be faster, given these faults."""
    attempts: int
    executions: int
    """Attempts that ran to their end, wanted or not."""
    useful_seconds: float
    """Time that workers spent on attempts whose outcome was delivered."""
    wasted_seconds: float
    """Time that they spent on others: destroyed by a fault, or not needed any more."""
    rerouted: int
    late: int
    hedged: int
    """Second attempts that were sent after slow ones."""
    latency_p99: float
    """Within so many seconds 99 % of the settled tasks were settled after they were submitted."""
    detections: tuple[Detection, ...]
    false_suspicions: int
    """How often an endpoint was suspected, left or declared dead with which nothing was wrong, `precautions` aside."""
    precautions: int
    """How often such an endpoint was suspected because others of its site had been lost."""
    quarantined: int
    """How often an endpoint was declared suspect or quarantined, rightly or not."""
    endpoint_seconds: float
    """Virtual time over all endpoints in which nothing was wrong with them."""
    steps: int
    """Stimuli handled."""
    digest: str
    """Of every dispatch and settlement with its time: equal for equal runs."""

    @property
    def settled(self) -> int:
        """Tasks that were settled."""
        return self.submitted - self.lost

    @property
    def wasted(self) -> int:
        """Attempts that ran to their end although nobody needed them to."""
        return max(0, self.executions - self.settled)

    def detection_times(self, kind: type[f.Fault] | None = None) -> list[float]:
        """Seconds until faults (of one kind) were noticed, in rising order."""
        return sorted(d.seconds for d in self.detections if kind is None or isinstance(d.fault, kind))


def quantile(rising: Sequence[float], share: float) -> float | None:
    """The value below which this share of the values lies; None if there is no value."""
    return rising[min(len(rising) - 1, int(share * len(rising)))] if rising else None
