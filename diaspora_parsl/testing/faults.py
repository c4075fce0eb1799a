"""What can go wrong with an endpoint, as a script that can be written down, drawn from a seed and replayed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

from diaspora_parsl.errors import ConfigurationError


class Kill(Struct, frozen=True, kw_only=True, tag=True):
    """The endpoint is gone without warning, with all that it held; it may be built anew."""

    at: float
    endpoint: str


class Freeze(Struct, frozen=True, kw_only=True, tag=True):
    """Its nodes stand still: no results, no heartbeats, while the control channel answers as if nothing were wrong.

    At ``until`` everything goes on where it stopped.
    """

    at: float
    endpoint: str
    until: float


class Mute(Struct, frozen=True, kw_only=True, tag=True):
    """Its control channel answers nothing until ``until``; work goes on."""

    at: float
    endpoint: str
    until: float


class Slow(Struct, frozen=True, kw_only=True, tag=True):
    """What starts there until ``until`` takes ``factor`` times as long."""

    at: float
    endpoint: str
    until: float
    factor: float = 10.0


class LoseWorker(Struct, frozen=True, kw_only=True, tag=True):
    """One of its workers dies with the task that it runs; the endpoint says so and starts another."""

    at: float
    endpoint: str


class LoseFabric(Struct, frozen=True, kw_only=True, tag=True):
    """Nothing can be published or read until ``until``."""

    at: float
    until: float


Fault = Kill | Freeze | Mute | Slow | LoseWorker | LoseFabric


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
            if not isinstance(fault, Kill | LoseWorker) and fault.until < fault.at:
                raise ConfigurationError(f"{fault} ends before it begins; give `until` >= `at`")

    def __iter__(self) -> Iterator[Fault]:
        return iter(sorted(self.faults, key=lambda fault: fault.at))

    def __len__(self) -> int:
        return len(self.faults)

    @classmethod
    def drawn(
        cls,
        seed: int,
        endpoints: Sequence[str],
        *,
        count: int,
        seconds: float,
        kinds: Sequence[type[Fault]] = (Kill, Freeze, Mute, Slow, LoseWorker, LoseFabric),
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
            until = at + rng.uniform(0.0, seconds / 4)
            match kind.__name__:
                case "LoseFabric":
                    faults.append(LoseFabric(at=at, until=until))
                case "Kill":
                    faults.append(Kill(at=at, endpoint=endpoint))
                case "LoseWorker":
                    faults.append(LoseWorker(at=at, endpoint=endpoint))
                case "Slow":
                    faults.append(Slow(at=at, endpoint=endpoint, until=until, factor=rng.uniform(2.0, 20.0)))
                case "Freeze":
                    faults.append(Freeze(at=at, endpoint=endpoint, until=until))
                case _:
                    faults.append(Mute(at=at, endpoint=endpoint, until=until))
        return cls(tuple(faults))

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
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"not a fault script: {error}") from None
