"""The CloudEvents envelope and the base class of payloads."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Final

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

PREFIX: Final = "org.diaspora.parsl."
TOPIC_TASK: Final = "parsl-task"
TOPIC_ENDPOINT: Final = "parsl-endpoint"
TOPIC_RESOURCE: Final = "parsl-resource"
TOPIC_CONTROL: Final = "parsl-control"
TOPICS: Final = (TOPIC_TASK, TOPIC_ENDPOINT, TOPIC_RESOURCE, TOPIC_CONTROL)

#: Largest size of an event, bytes. Typical events have a few hundred; every broker carries a megabyte.
MAX_BYTES: Final = 256 * 1024
#: Largest size of ``data``, bytes; the other attributes need up to 8 KiB.
_MAX_DATA: Final = MAX_BYTES - 8 * 1024

# Readers remember ids and sources, so their length is bounded.
_Short = Annotated[str, Meta(max_length=128)]
_Long = Annotated[str, Meta(max_length=512)]

_SNAKE = re.compile(r"(?<!^)(?=[A-Z])")
_REGISTRY: dict[str, type[Payload]] = {}


class Payload(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Base of the typed payloads.

    A subclass named ``TaskRerouted`` has the event type ``org.diaspora.parsl.task.rerouted.v1``. Fields may be added
    with a default (old readers ignore unknown fields). Any other change needs a new class with ``version = 2``.
    """

    version: ClassVar[int] = 1
    topic: ClassVar[str] = TOPIC_TASK
    #: False for resource samples, which are dropped first when space runs out.
    is_state_change: ClassVar[bool] = True
    _event_type: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        noun, _, state = _SNAKE.sub("_", cls.__name__).lower().partition("_")
        cls._event_type = f"{PREFIX}{noun}.{state}.v{cls.version}"
        if not cls.__name__.endswith("Payload"):  # a shared base class is not an event type
            _REGISTRY[cls._event_type] = cls

    @classmethod
    def event_type(cls) -> str:
        """Return the CloudEvents ``type`` of this payload: ``org.diaspora.parsl.<noun>.<state>.v<major>``."""
        return cls._event_type


class Event(Struct, frozen=True, kw_only=True):
    """One CloudEvents 1.0 message, structured JSON.

    ``source`` and ``id`` together are unique. Extensions: ``partitionkey`` (order is kept per key), ``sequence``
    (increases per source), ``originsite``, ``viasite`` (the previous fabric) and ``hops`` (number of bridges crossed),
    ``traceparent`` (W3C trace context of a task or attempt), ``signature`` (of requests, see `events.signing`).
    """

    id: _Short
    source: _Long
    type: _Short
    subject: _Long
    time: _Short
    """RFC 3339, UTC."""
    partitionkey: _Long
    sequence: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    data: Raw
    specversion: _Short = "1.0"
    datacontenttype: _Short = "application/json"
    originsite: _Long | UnsetType = UNSET
    viasite: _Long | UnsetType = UNSET
    hops: Annotated[int, Meta(ge=0, le=2**31 - 1)] | UnsetType = UNSET
    traceparent: _Short | UnsetType = UNSET
    signature: _Short | UnsetType = UNSET

    @property
    def topic(self) -> str:
        """Topic of this event type; control for unknown types."""
        payload = _REGISTRY.get(self.type)
        return payload.topic if payload else TOPIC_CONTROL

    @property
    def is_state_change(self) -> bool:
        """False for resource samples; True for unknown types, so that they are kept."""
        payload = _REGISTRY.get(self.type)
        return payload.is_state_change if payload else True

    def payload(self) -> Payload | None:
        """Return the typed payload, or None for an unknown type.

        Raises:
            ValueError: The data does not match the type (`msgspec.ValidationError` is a `ValueError`).
        """
        kind = _REGISTRY.get(self.type)
        try:
            return None if kind is None else msgspec.json.decode(self.data, type=kind)
        except RecursionError:
            raise ValueError("nested too deeply for an event") from None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)


def encode(event: Event) -> bytes:
    """Encode an event as CloudEvents JSON."""
    return _encoder.encode(event)


def decode(raw: bytes) -> Event:
    """Decode an event from CloudEvents JSON.

    Raises:
        ValueError: The bytes are not an event, or exceed `MAX_BYTES`.
    """
    if len(raw) > MAX_BYTES:
        raise ValueError(f"{len(raw)} bytes are too many for an event")
    try:
        return _decoder.decode(raw)
    except RecursionError:
        raise ValueError("nested too deeply for an event") from None


def encode_payload(payload: Payload) -> Raw:
    """Encode a payload as the ``data`` of an event.

    Raises:
        ValueError: The event would exceed `MAX_BYTES`.
    """
    data = _encoder.encode(payload)
    if len(data) > _MAX_DATA:
        raise ValueError(f"{len(data)} bytes are too many for an event")
    return Raw(data)


def known_types() -> dict[str, type[Payload]]:
    """Return the payload classes of all known event types, by event type."""
    return dict(_REGISTRY)
