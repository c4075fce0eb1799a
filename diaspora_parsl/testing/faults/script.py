"""What can go wrong with an endpoint, as a script that can be written down, drawn from a seed and replayed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from diaspora_parsl.errors import ConfigurationError


class _Fault(Struct, frozen=True, kw_only=True, tag=True):
    """Something that goes wrong ``at`` a time, in seconds from the start of the run."""

    at: float


class _Window(_Fault, frozen=True, kw_only=True, tag=True):
    """Something that is wrong with an endpoint until a time."""

    endpoint: str
    until: float


# --- endpoints and their parts ------------------------------------------------------------------------------------


class Kill(_Fault, frozen=True, kw_only=True, tag=True):
    """The endpoint is gone without warning, with all that it held; it may be rebuilt, from ``until`` on if given."""

    endpoint: str
    until: float | None = None


class LoseNode(_Fault, frozen=True, kw_only=True, tag=True):
    """One of its nodes, counted from 0, is gone without warning, with all that ran there; a new one is asked for."""

    endpoint: str
    node: int = 0


class LoseWorker(_Fault, frozen=True, kw_only=True, tag=True):
    """One of its workers dies with the task that it runs; the endpoint says so and starts another."""

    endpoint: str


class Freeze(_Window, frozen=True, kw_only=True, tag=True):
    """Its nodes stand still: no results, no heartbeats, while the control channel answers as if nothing were wrong.

    At ``until`` everything goes on where it stopped.
    """


class Mute(_Window, frozen=True, kw_only=True, tag=True):
    """Its control channel answers nothing until ``until``; work goes on."""


# --- what user code meets there -----------------------------------------------------------------------------------


class Slow(_Window, frozen=True, kw_only=True, tag=True):
    """What starts there until ``until`` takes ``factor`` times as long."""

    factor: float = 10.0


class Flaky(_Window, frozen=True, kw_only=True, tag=True):
    """A share of the attempts that start there end with an exception of the user's code, drawn from ``seed``."""

    rate: float = 0.3
    seed: int = 0


class BlackHole(_Window, frozen=True, kw_only=True, tag=True):
    """One of its nodes, counted from 0, fails every attempt at once, and so is always free for the next."""

    node: int = 0


class WrongEnvironment(_Window, frozen=True, kw_only=True, tag=True):
    """A function cannot be imported there; ``function`` is its name, None is every function."""

    function: str | None = None


class OutOfMemory(_Window, frozen=True, kw_only=True, tag=True):
    """There is too little memory for a function; ``function`` is its name, None is every function."""

    function: str | None = None


# --- the pool's own surroundings ----------------------------------------------------------------------------------


class LoseFabric(_Fault, frozen=True, kw_only=True, tag=True):
    """Nothing can be published or read until ``until``."""

    until: float


class ClockJump(_Fault, frozen=True, kw_only=True, tag=True):
    """For the pool time jumps ahead by ``seconds``: its own process stood still (a suspended host, a paused machine).

    The endpoints went on meanwhile; what they said comes in all at once.
    """

    seconds: float


# --- Globus Compute: the way between the client and an endpoint --------------------------------------------------


class Refuse(_Fault, frozen=True, kw_only=True, tag=True):
    """The service answers submissions to the endpoint with an error until ``until``; without one, every request.

    ``status`` is the HTTP status, ``delay`` how many seconds the client waits for it, to ``until`` at most.
    """

    until: float
    endpoint: str | None = None
    status: int = 503
    delay: float = 0.0


class LoseResults(_Window, frozen=True, kw_only=True, tag=True):
    """A share of the results never reaches the client, drawn from ``seed``.

    ``kept``: the service has them, and tells who asks for the task; if not, the task runs for ever, as it seems.
    """

    rate: float = 1.0
    seed: int = 0
    kept: bool = False


class RepeatResults(_Window, frozen=True, kw_only=True, tag=True):
    """A share of the results is delivered twice, drawn from ``seed``."""

    rate: float = 1.0
    seed: int = 0


class WrongStatus(_Window, frozen=True, kw_only=True, tag=True):
    """Its status says ``status``, whatever is true.

    ``counts``: with the numbers of workers and tasks that were true when it began; if not, without any.
    """

    status: str = "online"
    counts: bool = True


class LoseConnection(_Fault, frozen=True, kw_only=True, tag=True):
    """Every connection on which clients wait for results is dropped; they may connect again at once."""


class LoseBroker(_Fault, frozen=True, kw_only=True, tag=True):
    """Clients cannot wait for results until ``until``; the service goes on, and keeps what comes."""

    until: float


class ForgetResults(_Fault, frozen=True, kw_only=True, tag=True):
    """Every result that waits at the service is kept no longer, as if it had waited for too long."""


#: What happens at one endpoint, anywhere.
PlaceFault: TypeAlias = (
    Kill | LoseNode | LoseWorker | Freeze | Mute | Slow | Flaky | BlackHole | WrongEnvironment | OutOfMemory
)
#: What a worker applies to user code; see `diaspora_parsl.testing.faults.worker_faults`.
WorkerFault: TypeAlias = Slow | Flaky | BlackHole | WrongEnvironment | OutOfMemory
#: What happens to clients of Globus Compute only; see `diaspora_parsl.testing.globus`.
GlobusFault: TypeAlias = (
    Refuse | LoseResults | RepeatResults | WrongStatus | LoseConnection | LoseBroker | ForgetResults
)
Fault: TypeAlias = PlaceFault | LoseFabric | ClockJump | GlobusFault

#: Why other places refuse a `GlobusFault`.
GLOBUS_ONLY: Final = "only Globus Compute knows it; give it to the endpoints of a LocalGlobusCompute"

#: Faults of the infrastructure: a pool loses no task to them.
INFRASTRUCTURE: tuple[type[Fault], ...] = (Kill, Freeze, Mute, Slow, LoseWorker, LoseFabric)

_HTTP_ERRORS: Final = range(400, 600)


class FaultScript(Struct, frozen=True):
    """Faults by time. All times are seconds from the start of the run.

    Raises:
        ConfigurationError: a fault ends before it begins, or begins before the run.
    """

    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        for fault in self.faults:
            if fault.at < 0.0:
                raise ConfigurationError(f"{fault} begins before the run; give `at` >= 0")
            until = getattr(fault, "until", None)
            if until is not None and until < fault.at:
                raise ConfigurationError(f"{fault} ends before it begins; give `until` >= `at`")
            if not 0.0 <= getattr(fault, "rate", 0.0) <= 1.0:
                raise ConfigurationError(f"{fault} meets an impossible share; give `rate` from 0 to 1")
            if isinstance(fault, Slow) and fault.factor < 1.0:
                raise ConfigurationError(f"{fault} is faster than without it; give `factor` >= 1")
            if isinstance(fault, ClockJump) and fault.seconds <= 0.0:
                raise ConfigurationError(f"{fault} does not jump ahead; give `seconds` > 0")
            if isinstance(fault, LoseNode | BlackHole) and fault.node < 0:
                raise ConfigurationError(f"{fault} names no node; give `node` >= 0")
            if isinstance(fault, Refuse) and (fault.status not in _HTTP_ERRORS or fault.delay < 0.0):
                raise ConfigurationError(f"{fault} refuses nothing; give `status` from 400 to 599, `delay` >= 0")

    def __iter__(self) -> Iterator[Fault]:
        return iter(sorted(self.faults, key=lambda fault: fault.at))

    def __len__(self) -> int:
        return len(self.faults)

    def __add__(self, other: FaultScript) -> FaultScript:
        """Both at once."""
        return FaultScript(self.faults + other.faults)

    def endpoints(self) -> set[str]:
        """Labels of the endpoints that something happens to."""
        named = (getattr(fault, "endpoint", None) for fault in self.faults)
        return {label for label in named if label is not None}

    @classmethod
    def drawn(
        cls,
        seed: int,
        endpoints: Sequence[str],
        *,
        count: int,
        seconds: float,
        kinds: Sequence[type[Fault]] = INFRASTRUCTURE,
    ) -> FaultScript:
        """A random script: the same seed and arguments give the same script everywhere.

        Args:
            seed: of the generator.
            endpoints: labels to choose from, in this order.
            count: of faults.
            seconds: faults begin within this time, and last up to a quarter of it.
            kinds: of faults to choose from.
        """
        rng = random.Random(seed)  # noqa: S311 - a reproducible script, no secret
        faults: list[Fault] = []
        for _ in range(count):
            kind, at, endpoint = rng.choice(kinds), rng.uniform(0.0, seconds), rng.choice(endpoints)
            faults.append(_one(kind, rng, at, at + rng.uniform(0.0, seconds / 4), endpoint))
        return cls(tuple(faults))

    @classmethod
    def clustered(
        cls,
        seed: int,
        sites: Mapping[str, Sequence[str]],
        *,
        seconds: float,
        between: float,
        down: float = 30.0,
        again: float = 0.4,
        soon: float = 60.0,
        together: float = 0.1,
        kinds: Sequence[type[Fault]] = (Kill, Freeze, LoseWorker),
    ) -> FaultScript:
        """A script as on real machines: what failed lately fails again soon, and some failures take a whole site along.

        Failures of one endpoint are a branching process (Hawkes): spontaneous ones at random, and after each failure
        another with a certain probability. So the same number of failures comes in clusters.

        Args:
            seed: of the generator; the same seed and arguments give the same script everywhere.
            sites: the endpoints of each site.
            seconds: faults begin within this time.
            between: mean seconds between two spontaneous failures of one endpoint.
            down: mean seconds that a failure lasts, if its kind lasts.
            again: probability that a failure is followed by another of the same endpoint, below 1.
            soon: mean seconds until that one.
            together: probability that a failure is one of the whole site, at the same moment, as if its file system or
                its power failed: all of its endpoints are killed.
            kinds: of failures of single endpoints.

        Raises:
            ConfigurationError: the numbers describe no such process.
        """
        if between <= 0.0 or down <= 0.0 or soon <= 0.0 or not (0.0 <= again < 1.0 and 0.0 <= together <= 1.0):
            raise ConfigurationError(
                f"clustered(between={between}, down={down}, soon={soon}, again={again}, together={together}): give "
                f"times above 0, `again` from 0 to below 1, `together` from 0 to 1"
            )
        rng = random.Random(seed)  # noqa: S311 - a reproducible script, no secret
        faults: list[Fault] = []
        for labels in sites.values():
            for label in labels:
                for at in _failures(rng, seconds, between, again, soon):
                    until = at + rng.expovariate(1.0 / down)
                    if rng.random() < together:
                        faults += [Kill(at=at, endpoint=neighbour, until=until) for neighbour in labels]
                        continue
                    kind = rng.choice(kinds)
                    if kind is Kill:
                        faults.append(Kill(at=at, endpoint=label, until=until))
                    else:
                        faults.append(_one(kind, rng, at, until, label))
        return cls(tuple(sorted(faults, key=lambda fault: fault.at)))

    def to_json(self) -> bytes:
        """The script as JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, raw: bytes | str) -> FaultScript:
        """A script from JSON.

        Raises:
            ConfigurationError: it is none; the message says where.
        """
        try:
            return msgspec.json.decode(raw, type=cls)
        except msgspec.DecodeError as error:
            raise ConfigurationError(f"not a fault script: {error}") from None


def _one(kind: type[Fault], rng: random.Random, at: float, until: float, endpoint: str) -> Fault:
    """A fault of this kind; what else it needs is drawn."""
    if kind is Kill:
        return Kill(at=at, endpoint=endpoint)
    draw: dict[str, Callable[[], float | str]] = {
        "at": lambda: at,
        "endpoint": lambda: endpoint,
        "until": lambda: until,
        "seconds": lambda: max(0.1, until - at),
        "factor": lambda: rng.uniform(2.0, 20.0),
        "rate": lambda: rng.uniform(0.1, 0.9),
        "seed": lambda: rng.getrandbits(32),
    }
    return kind(**{name: draw[name]() for name in kind.__struct_fields__ if name in draw})  # type: ignore[arg-type]


def _failures(rng: random.Random, seconds: float, between: float, again: float, soon: float) -> Iterator[float]:
    """Times of the failures of one endpoint."""
    spontaneous = rng.expovariate(1.0 / between)
    while spontaneous < seconds:
        at = spontaneous
        yield at
        while rng.random() < again:
            at += rng.expovariate(1.0 / soon)
            if at >= seconds:
                break
            yield at
        spontaneous += rng.expovariate(1.0 / between)
