"""The CloudEvents envelope, and the base of what travels in it."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

PREFIX: Final = "org.diaspora.parsl."
TOPIC_TASK: Final = "parsl-task"
TOPIC_ENDPOINT: Final = "parsl-endpoint"
TOPIC_RESOURCE: Final = "parsl-resource"
TOPIC_CONTROL: Final = "parsl-control"
TOPICS: Final = (TOPIC_TASK, TOPIC_ENDPOINT, TOPIC_RESOURCE, TOPIC_CONTROL)

_SNAKE = re.compile(r"(?<!^)(?=[A-Z])")
_REGISTRY: dict[str, type[Payload]] = {}


class Payload(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Base of the typed payloads.

    A subclass named ``TaskRerouted`` has the event type ``org.diaspora.parsl.task.rerouted.v1``. Fields may be added
    with a default (old readers ignore what they do not know); any other change needs a new class with ``version = 2``.
    """

    version: ClassVar[int] = 1
    topic: ClassVar[str] = TOPIC_TASK
    #: False for resource samples, the first to be dropped when space runs out.
    is_state_change: ClassVar[bool] = True
    _event_type: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        noun, _, state = _SNAKE.sub("_", cls.__name__).lower().partition("_")
        cls._event_type = f"{PREFIX}{noun}.{state}.v{cls.version}"
        if not cls.__name__.endswith("Payload"):  # what several types share is no event
            _REGISTRY[cls._event_type] = cls

    @classmethod
    def event_type(cls) -> str:
        """The CloudEvents ``type`` of this payload: ``org.diaspora.parsl.<noun>.<state>.v<major>``."""
        return cls._event_type


class Event(Struct, frozen=True, kw_only=True):
    """One CloudEvents 1.0 message, structured JSON.

    ``source`` and ``id`` together are unique. Extensions: ``partitionkey`` (order is kept per key), ``sequence``
    (counts up per source), ``originsite`` and ``hops`` (for bridges).
    """

    id: str
    source: str
    type: str
    subject: str
    time: str
    """RFC 3339, UTC."""
    partitionkey: str
    sequence: int
    data: Raw
    specversion: str = "1.0"
    datacontenttype: str = "application/json"
    originsite: str | UnsetType = UNSET
    hops: int | UnsetType = UNSET
    traceparent: str | UnsetType = UNSET

    @property
    def topic(self) -> str:
        """The topic this type of event belongs to; control for types this version does not know."""
        payload = _REGISTRY.get(self.type)
        return payload.topic if payload else TOPIC_CONTROL

    @property
    def is_state_change(self) -> bool:
        """False for resource samples; unknown types count as state changes, so that they are kept."""
        payload = _REGISTRY.get(self.type)
        return payload.is_state_change if payload else True

    def payload(self) -> Payload | None:
        """The typed payload, or None if this version does not know the type.

        Raises:
            ValueError: the data does not fit the type (`msgspec.ValidationError` is a `ValueError`).
        """
        kind = _REGISTRY.get(self.type)
        return None if kind is None else msgspec.json.decode(self.data, type=kind)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)


def encode(event: Event) -> bytes:
    """One event as CloudEvents JSON."""
    return _encoder.encode(event)


def decode(raw: bytes) -> Event:
    """One event from CloudEvents JSON.

    Raises:
        ValueError: the bytes are no event.
    """
    try:
        return _decoder.decode(raw)
    except RecursionError:
        raise ValueError("nested too deeply for an event") from None


def encode_payload(payload: Payload) -> Raw:
    """A payload as the ``data`` of an envelope."""
    return Raw(_encoder.encode(payload))


def known_types() -> dict[str, type[Payload]]:
    """Every event type that this version knows, by name."""
    return dict(_REGISTRY)
