"""The interface of surrogates."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


Fingerprints = NDArray[np.uint8]


class Prediction(NamedTuple):
    """What a surrogate expects, in the unit of the scores."""

    mean: Floats
    deviation: Floats
    """Standard deviation of the mean, without the noise of a score."""


class Surrogate(Protocol):
    """A fitted model of the scores."""

    def mean(self, fingerprints: Fingerprints) -> Floats:
        """The expected score per molecule, the same in whatever company it is asked."""
        ...

    def predict(self, fingerprints: Fingerprints) -> Prediction:
        """The expected score with its standard deviation, which can cost more."""
        ...
