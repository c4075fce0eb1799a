"""Ranking: the best of very many molecules, without asking a costly model about each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from ..surrogates.base import Fingerprints

#: Number of molecules up to which the model predicts each.
EXACT: Final = 20_000
#: Molecules that teach the sieve what the model thinks.
_LESSON: Final = 4096
_RIDGE: Final = 10.0
_CHUNK: Final = 8192

Merit = Callable[[Fingerprints], NDArray[np.float32]]


def lowest(values: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Places of the lowest values in order, equal ones in the order of their places; no full sort is made."""
    if count < len(values):
        edge = np.partition(values, count - 1)[count - 1]
        places = np.flatnonzero(values <= edge)
    else:
        places = np.arange(len(values))
    return places[np.argsort(values[places], kind="stable")][:count].astype(np.int64)


def shortlist(merit: Merit, fingerprints: Fingerprints, count: int, seed: int) -> NDArray[np.int64]:
    """Molecules among which the lowest merits are: all of them if they are few, else what passes a linear sieve.

    The sieve is a ridge regression from bits to merits, made for this one call from a random sample. A table of what
    each byte of a fingerprint adds makes it cheap: a second for a million molecules, read once and in parts.

    Args:
        merit: function of packed fingerprints.
        fingerprints: packed bits, ``uint8`` of shape (molecules, bytes); may be mapped from a file.
        count: how many are wanted; at least as many, and `EXACT`, pass.
        seed: of the sample.
    """
    molecules = len(fingerprints)
    passing = max(EXACT, count)
    if passing >= molecules:
        return np.arange(molecules)
    sample = np.sort(np.random.default_rng(seed).choice(molecules, _LESSON, replace=False))
    known = fingerprints[sample]
    values = merit(known)
    bits = np.unpackbits(known, axis=1).astype(np.float32)
    centre = bits.mean(axis=0)
    bits -= centre
    gram = bits.T @ bits
    gram[np.diag_indices_from(gram)] += _RIDGE
    weights = cho_solve(cho_factor(gram, lower=True), bits.T @ (values - values.mean()))
    return np.sort(lowest(_linear(fingerprints, weights.astype(np.float32)), passing))


def _linear(fingerprints: Fingerprints, weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum of the weights of the bits that are set, per molecule."""
    patterns = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32)
    width = fingerprints.shape[1]
    table = (weights.reshape(width, 8) @ patterns.T).ravel()
    starts = np.arange(width, dtype=np.int32) * 256
    sums = np.empty(len(fingerprints), np.float32)
    for start in range(0, len(fingerprints), _CHUNK):
        part = slice(start, start + _CHUNK)
        sums[part] = table.take(fingerprints[part] + starts).sum(axis=1)
    return sums
