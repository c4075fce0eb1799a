"""Phi accrual failure detectors for heartbeats."""

from __future__ import annotations

import math
from collections import deque
from functools import cache
from itertools import islice
from typing import Final

_WINDOW: Final = 200
#: Number of nodes whose phi is compared: those with the newest heartbeats.
_COMPARED: Final = 256


def phi_of(deviations: float) -> float:
    """Return phi after a silence of this number of standard deviations beyond the expected interval.

    ``phi = -log10(P(a heartbeat comes later than this))`` for normally distributed intervals (Hayashibara et al.,
    "The phi accrual failure detector", SRDS 2004, section 4), with the logistic approximation of the normal tail
    that Akka's ``PhiAccrualFailureDetector`` uses.
    """
    exponent = deviations * (1.5976 + 0.070566 * deviations * deviations)
    # log10(1 + e^x), stable for large x
    log10_tail = exponent / math.log(10) + math.log10(1.0 + math.exp(-exponent)) if exponent > 0 else None
    return log10_tail if log10_tail is not None else math.log10(1.0 + math.exp(exponent))


@cache
def deviations_of(phi: float) -> float:
    """Return the inverse of `phi_of`, for ``phi`` above 0.31, by bisection."""
    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if phi_of(middle) < phi else (low, middle)
    return high


class PhiAccrual:
    """Detector of one stream of heartbeats. All times are seconds on one monotonic clock.

    Args:
        at: Time of the first heartbeat.
        interval: Seconds between two heartbeats, announced by the sender.
        threshold: Phi at which the stream counts as silent; 8 is one mistake in 10^8 if intervals are normal.
        pause: Seconds of acceptable delay: garbage collection, a stalled file system.
        min_deviation: Lower bound of the standard deviation in seconds.
    """

    __slots__ = ("_deviations", "_intervals", "_min_deviation", "_pause", "_sum", "_sum_sq", "last")

    def __init__(
        self, at: float, interval: float, *, threshold: float = 8.0, pause: float = 2.5, min_deviation: float = 0.1
    ) -> None:
        self.last = at
        self._deviations = deviations_of(threshold)
        self._pause = pause
        self._min_deviation = min_deviation
        # Start from the announced interval with a wide spread, as Akka does.
        self._intervals: deque[float] = deque((interval * 0.75, interval * 1.25), maxlen=_WINDOW)
        self._sum = sum(self._intervals)
        self._sum_sq = sum(i * i for i in self._intervals)

    @property
    def mean(self) -> float:
        """Mean interval in seconds."""
        return self._sum / len(self._intervals)

    @property
    def deviation(self) -> float:
        """Standard deviation of the intervals in seconds, at least ``min_deviation``."""
        variance = self._sum_sq / len(self._intervals) - self.mean**2
        return max(self._min_deviation, math.sqrt(max(0.0, variance)))

    def beat(self, at: float) -> None:
        """Record a heartbeat; an interval that was an outage does not count as a sample."""
        interval = at - self.last
        self.last = max(self.last, at)
        if not 0.0 <= interval <= self.mean + self._pause:
            return
        if len(self._intervals) == _WINDOW:
            oldest = self._intervals[0]
            self._sum -= oldest
            self._sum_sq -= oldest * oldest
        self._intervals.append(interval)
        self._sum += interval
        self._sum_sq += interval * interval

    def discount_silence(self, at: float) -> None:
        """Discard the silence up to now, because the observer was stalled."""
        self.last = max(self.last, at)

    def phi(self, at: float) -> float:
        """Return phi at this time; 0 right after a heartbeat."""
        return max(0.0, phi_of((at - self.last - self.mean - self._pause) / self.deviation))

    def silent_from(self) -> float:
        """Time at which phi reaches the threshold without another heartbeat."""
        return self.last + self.mean + self._pause + self._deviations * self.deviation


class NodeHeartbeats:
    """Detectors of all nodes of one endpoint, in the order of their last heartbeats.

    One node with a heartbeat proves that the endpoint is alive. An endpoint may have 20,000 nodes, so queries about all
    of them use the newest heartbeat, or a value that is cached until the next one.
    """

    __slots__ = ("_detectors", "_silent_from")

    def __init__(self) -> None:
        self._detectors: dict[str, PhiAccrual] = {}
        self._silent_from: float | None = None

    def __len__(self) -> int:
        return len(self._detectors)

    def beat(self, node: str, at: float, interval: float, *, threshold: float, pause: float) -> None:
        """Record a heartbeat of a known or new node."""
        detector = self._detectors.pop(node, None)
        if detector is None:
            detector = PhiAccrual(at, interval, threshold=threshold, pause=pause)
        else:
            detector.beat(at)
        self._detectors[node] = detector
        self._silent_from = None

    def forget(self, node: str) -> None:
        """Drop a node that announced its end."""
        self._detectors.pop(node, None)
        self._silent_from = None

    def clear(self) -> None:
        """Drop all nodes."""
        self._detectors.clear()
        self._silent_from = None

    def discount_silence(self, at: float) -> None:
        """Discard the silence of all nodes up to now, because the observer was stalled."""
        for detector in self._detectors.values():
            detector.discount_silence(at)
        self._silent_from = None

    @property
    def newest(self) -> PhiAccrual | None:
        """Detector with the last heartbeat; None without any node."""
        return next(reversed(self._detectors.values()), None)

    def are_silent(self, at: float) -> bool:
        """Return whether every node counts as silent at this time; False without any node."""
        newest = self.newest
        if newest is None or at < newest.silent_from():
            return False
        if self._silent_from is None:
            self._silent_from = max(detector.silent_from() for detector in self._detectors.values())
        return at >= self._silent_from

    def phi(self, at: float) -> float:
        """Return the lowest phi of the nodes; 0 without any."""
        compared = islice(reversed(self._detectors.values()), _COMPARED)
        return min((detector.phi(at) for detector in compared), default=0.0)
