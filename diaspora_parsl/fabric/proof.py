"""Proof that whoever tells something holds a secret, without telling the secret."""

from __future__ import annotations

import hashlib
import hmac


def proof_of(secret: str, *words: object) -> str:
    """What only a holder of the secret can say of these words: 32 hexadecimal digits."""
    text = "\0".join(map(str, words)).encode()
    return hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()[:32]


def is_proof(told: str, secret: str, *words: object) -> bool:
    """Whether that is it."""
    return hmac.compare_digest(told.encode(), proof_of(secret, *words).encode())
