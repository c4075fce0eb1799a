"""HMAC-SHA256 signatures: a pool accepts a request only if its sender has the key of the run."""

from __future__ import annotations

import hashlib
import hmac

import msgspec
from msgspec import UNSET

from diaspora_parsl.events.envelope import Event


def signed(event: Event, key: str) -> Event:
    """Return the event with an HMAC-SHA256 signature of all attributes that a bridge leaves unchanged."""
    return msgspec.structs.replace(event, signature=_hmac(key, _signed_bytes(event)))


def is_signed(event: Event, key: str) -> bool:
    """Whether the signature of the event matches the key; False if the key is empty."""
    if not key or event.signature is UNSET:
        return False
    try:
        expected = _hmac(key, _signed_bytes(event))
    except (ValueError, RecursionError):
        return False  # data is not JSON
    return hmac.compare_digest(expected.encode(), event.signature.encode())


def _signed_bytes(event: Event) -> bytes:
    # Sign the decoded data, because a transport may reformat the JSON.
    data = msgspec.json.decode(event.data)
    fields = [event.id, event.source, event.type, event.subject, event.time, event.partitionkey, event.sequence, data]
    return msgspec.json.encode(fields, order="deterministic")


def hmac_of(secret: str, *fields: object) -> str:
    """Return the HMAC of the fields: 32 hexadecimal digits."""
    return _hmac(secret, "\0".join(map(str, fields)).encode())[:32]


def is_hmac_of(digest: str, secret: str, *fields: object) -> bool:
    """Whether the digest is the HMAC of the fields."""
    return hmac.compare_digest(digest.encode(), hmac_of(secret, *fields).encode())


def _hmac(secret: str, message: bytes) -> str:
    return hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()
