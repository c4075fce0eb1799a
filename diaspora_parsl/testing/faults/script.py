"""Faults as data: a script can be written as JSON, drawn from a seed and replayed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from diaspora_parsl.errors import ConfigurationError


class _Fault(Struct, frozen=True, kw_only=True, tag=True):
    """A fault that begins ``at`` seconds after the start of the run."""

    at: float


class _Window(_Fault, frozen=True, kw_only=True, tag=True):
    """A fault of one endpoint that lasts until ``until`` (seconds from the start of the run)."""

    endpoint: str
    until: float


# --- endpoints and their parts ------------------------------------------------------------------------------------


class Kill(_Fault, frozen=True, kw_only=True, tag=True):
    """The endpoint dies with all its tasks. It can be restarted, with ``until`` only after that time."""

    endpoint: str
    until: float | None = None


class LoseNode(_Fault, frozen=True, kw_only=True, tag=True):
    """A node, counted from 0, dies with all its tasks. The endpoint requests a new one."""

    endpoint: str
    node: int = 0


class LoseWorker(_Fault, frozen=True, kw_only=True, tag=True):
    """A worker dies with its task. The endpoint reports the loss and starts another worker."""

    endpoint: str


class Freeze(_Window, frozen=True, kw_only=True, tag=True):
    """The nodes stop: no results and no heartbeats, while the control channel still answers.

    At ``until`` they continue where they stopped.
    """


class Mute(_Window, frozen=True, kw_only=True, tag=True):
    """The control channel does not answer; tasks continue to run."""


# --- faults of user functions ------------------------------------------------------------------------------------


class Slow(_Window, frozen=True, kw_only=True, tag=True):
    """Attempts that start in the window take ``factor`` times as long."""

    factor: float = 10.0


class Flaky(_Window, frozen=True, kw_only=True, tag=True):
    """Attempts that start in the window raise an exception with probability ``rate``, drawn from ``seed``."""

    rate: float = 0.3
    seed: int = 0


class BlackHole(_Window, frozen=True, kw_only=True, tag=True):
    """A node, counted from 0, fails every attempt immediately, and so is always free for the next."""

    node: int = 0


class WrongEnvironment(_Window, frozen=True, kw_only=True, tag=True):
    """The function named ``function`` (None: every function) cannot be imported."""

    function: str | None = None


class OutOfMemory(_Window, frozen=True, kw_only=True, tag=True):
    """The function named ``function`` (None: every function) runs out of memory."""

    function: str | None = None


# --- the pool's own environment -----------------------------------------------------------------------------------


class LoseFabric(_Fault, frozen=True, kw_only=True, tag=True):
    """Publishing and reading events fails until ``until``."""

    until: float


class ClockJump(_Fault, frozen=True, kw_only=True, tag=True):
    """The process of the pool stops for ``seconds``, as on a suspended host.

    The endpoints continue; the pool receives all their messages when it resumes.
    """

    seconds: float


# --- Globus Compute: the path between client and endpoint -------------------------------------------------------


class Refuse(_Fault, frozen=True, kw_only=True, tag=True):
    """The service answers submissions to the endpoint with an error; without an endpoint, every request.

    ``status`` is the HTTP status. The client receives it after ``delay`` seconds, at the latest at ``until``.
    """

    until: float
    endpoint: str | None = None
    status: int = 503
    delay: float = 0.0


class LoseResults(_Window, frozen=True, kw_only=True, tag=True):
    """Results are lost on their path to the client with probability ``rate``, drawn from ``seed``.

    ``kept``: the service still returns the result when polled for the task; else the task appears to run for ever.
    """

    rate: float = 1.0
    seed: int = 0
    kept: bool = False


class RepeatResults(_Window, frozen=True, kw_only=True, tag=True):
    """Results are delivered twice with probability ``rate``, drawn from ``seed``."""

    rate: float = 1.0
    seed: int = 0


class WrongStatus(_Window, frozen=True, kw_only=True, tag=True):
    """The service reports ``status`` for the endpoint, whatever its state.

    ``counts``: report the numbers of workers and tasks from the begin of the fault; else report none.
    """

    status: str = "online"
    counts: bool = True


class LoseConnection(_Fault, frozen=True, kw_only=True, tag=True):
    """The service drops every connection on which clients wait for results. They may reconnect immediately."""


class LoseBroker(_Fault, frozen=True, kw_only=True, tag=True):
    """Clients cannot connect to wait for results until ``until``; the service keeps the results."""

    until: float


class ForgetResults(_Fault, frozen=True, kw_only=True, tag=True):
    """The service drops every result that waits for a client, as if it had expired."""


#: Faults of one endpoint of any kind.
PlaceFault: TypeAlias = (
    Kill | LoseNode | LoseWorker | Freeze | Mute | Slow | Flaky | BlackHole | WrongEnvironment | OutOfMemory
)
#: Faults that a worker applies to user functions; see `diaspora_parsl.testing.faults.worker_faults`.
WorkerFault: TypeAlias = Slow | Flaky | BlackHole | WrongEnvironment | OutOfMemory
#: Faults of Globus Compute only; see `diaspora_parsl.testing.globus`.
GlobusFault: TypeAlias = (
    Refuse | LoseResults | RepeatResults | WrongStatus | LoseConnection | LoseBroker | ForgetResults
)
Fault: TypeAlias = PlaceFault | LoseFabric | ClockJump | GlobusFault

#: Why endpoints of other kinds refuse a `GlobusFault`.
GLOBUS_ONLY: Final = "only Globus Compute has this fault; apply it to the endpoints of a LocalGlobusCompute"

#: Faults of the infrastructure, to which a pool loses no task.
INFRASTRUCTURE: tuple[type[Fault], ...] = (Kill, Freeze, Mute, Slow, LoseWorker, LoseFabric)

_HTTP_ERRORS: Final = range(400, 600)


class FaultScript(Struct, frozen=True):
    """A sequence of faults, iterated by time. All times are seconds from the start of the run.

    Raises:
        ConfigurationError: A fault begins before the run, ends before it begins, or has a value out of range.
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
                raise ConfigurationError(f"{fault} has an impossible rate; give `rate` from 0 to 1")
            if isinstance(fault, Slow) and fault.factor < 1.0:
                raise ConfigurationError(f"{fault} is no slowdown; give `factor` >= 1")
            if isinstance(fault, ClockJump) and fault.seconds <= 0.0:
                raise ConfigurationError(f"{fault} is no jump ahead; give `seconds` > 0")
            if isinstance(fault, LoseNode | BlackHole) and fault.node < 0:
                raise ConfigurationError(f"{fault} names no node; give `node` >= 0")
            if isinstance(fault, Refuse) and (fault.status not in _HTTP_ERRORS or fault.delay < 0.0):
                raise ConfigurationError(f"{fault} is no refusal; give `status` from 400 to 599, `delay` >= 0")

    def __iter__(self) -> Iterator[Fault]:
        return iter(sorted(self.faults, key=lambda fault: fault.at))

    def __len__(self) -> int:
        return len(self.faults)

    def __add__(self, other: FaultScript) -> FaultScript:
        """Return a script with the faults of both."""
        return FaultScript(self.faults + other.faults)

    def endpoints(self) -> set[str]:
        """Return the labels of the endpoints that the script names."""
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
        """Draw a random script. Equal arguments give equal scripts on every host.

        Args:
            seed: Seed of the generator.
            endpoints: Labels to choose from; their order matters.
            count: Number of faults.
            seconds: Seconds in which faults begin. A fault lasts up to a quarter of it.
            kinds: Types of fault to choose from.
        """
        rng = random.Random(seed)  # noqa: S311 - a reproducible script, no secret
        faults: list[Fault] = []
        for _ in range(count):
            kind, at, endpoint = rng.choice(kinds), rng.uniform(0.0, seconds), rng.choice(endpoints)
            faults.append(_drawn_fault(kind, rng, at, at + rng.uniform(0.0, seconds / 4), endpoint))
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
        """Draw a script with failures clustered in time and across a site, as observed on real machines.

        The failures of one endpoint are a self-exciting branching process (Hawkes 1971): spontaneous failures come at
        random, and each failure causes another with probability ``again``.

        Args:
            seed: Seed of the generator. Equal arguments give equal scripts on every host.
            sites: Endpoint labels by site.
            seconds: Seconds in which faults begin.
            between: Mean seconds between two spontaneous failures of one endpoint.
            down: Mean duration of a failure in seconds, for kinds that last.
            again: Probability that a failure causes another of the same endpoint, below 1.
            soon: Mean seconds until the caused failure.
            together: Probability that a failure kills all endpoints of the site, as a power failure does.
            kinds: Types of fault of single endpoints.

        Raises:
            ConfigurationError: A number is out of range.
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
                        faults.append(_drawn_fault(kind, rng, at, until, label))
        return cls(tuple(sorted(faults, key=lambda fault: fault.at)))

    def to_json(self) -> bytes:
        """Encode the script as JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, raw: bytes | str) -> FaultScript:
        """Decode a script from JSON.

        Raises:
            ConfigurationError: The text is no fault script; the message names the position.
        """
        try:
            return msgspec.json.decode(raw, type=cls)
        except msgspec.DecodeError as error:
            raise ConfigurationError(f"not a fault script: {error}") from None


def _drawn_fault(kind: type[Fault], rng: random.Random, at: float, until: float, endpoint: str) -> Fault:
    """Return a fault of this kind, with its other fields drawn."""
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
    """Yield the times of the failures of one endpoint."""
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
