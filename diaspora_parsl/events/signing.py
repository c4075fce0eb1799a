"""Signatures of requests: a pool follows a request only if its sender has the key of the run."""

from __future__ import annotations

import hashlib
import hmac

import msgspec
from msgspec import UNSET

from diaspora_parsl.events.envelope import Event


def signed(event: Event, key: str) -> Event:
    """The event with its signature: HMAC-SHA256 of everything that a bridge leaves as it is."""
    return msgspec.structs.replace(event, signature=_digest(event, key))


def is_signed(event: Event, key: str) -> bool:
    """Whether somebody with this key signed the event as it is; never, if there is no key."""
    if not key or event.signature is UNSET:
        return False
    try:
        expected = _digest(event, key)
    except (ValueError, RecursionError):
        return False  # its data is no JSON
    return hmac.compare_digest(expected.encode(), event.signature.encode())


def _digest(event: Event, key: str) -> str:
    # A transport may write the JSON again: its meaning is signed, not its blanks.
    data = msgspec.json.decode(event.data)
    meant = [event.id, event.source, event.type, event.subject, event.time, event.partitionkey, event.sequence, data]
    return hmac.new(key.encode(), msgspec.json.encode(meant, order="deterministic"), hashlib.sha256).hexdigest()


def hmac_of(secret: str, *words: object) -> str:
    """What only a holder of the secret can say of these words: 32 hexadecimal digits."""
    text = "\0".join(map(str, words)).encode()
    return hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()[:32]


def is_hmac_of(told: str, secret: str, *words: object) -> bool:
    """Whether that is it."""
    return hmac.compare_digest(told.encode(), hmac_of(secret, *words).encode())
