"""Limits the requests to a service; all endpoints of one account share a limit."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final
from weakref import WeakValueDictionary

#: Globus Compute allows 20 requests in 10 s; a tenth is left to others of the same account.
_MOST: Final = 18
_WINDOW: Final = 10.0

_accounts: WeakValueDictionary[str, RateLimit] = WeakValueDictionary()
_accounts_lock: Final = threading.Lock()


class RateLimit:
    """At most ``most`` requests in ``window`` seconds, whichever thread they come from.

    Args:
        most: requests.
        window: seconds.
        clock: Returns the time in seconds.
    """

    def __init__(self, most: int = _MOST, window: float = _WINDOW, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._window = window
        self._clock = clock
        self._lock = threading.Lock()
        #: Send times of urgent and of other requests, and the limit of each.
        self._taken: dict[bool, deque[float]] = {True: deque(), False: deque()}
        self._share = {True: most - most // 3, False: max(1, most // 2)}
        self._barred_until = float("-inf")

    def wait_time(self, *, urgent: bool = True) -> float:
        """Take one request if it may be sent now, and return 0; else seconds until it is worth asking again.

        Args:
            urgent: whether somebody waits for it. A third of the requests is kept for what is not urgent, or those who
                always have something to send would leave it none; and it gets no more than half of them, spread evenly:
                all at once, nobody would ask for the rest of the time.
        """
        with self._lock:
            now = self._clock()
            for times in self._taken.values():
                while times and times[0] <= now - self._window:
                    times.popleft()
            own = self._taken[urgent]
            wait = self._barred_until - now
            if sum(map(len, self._taken.values())) >= self._most:
                wait = max(wait, min(times[0] for times in self._taken.values() if times) + self._window - now)
            if len(own) >= self._share[urgent]:
                wait = max(wait, own[0] + self._window - now)
            if own and not urgent:
                wait = max(wait, own[-1] + self._window / self._share[urgent] - now)
            if wait > 0.0:
                return wait
            own.append(now)
            return 0.0

    def take(self, stop: threading.Event) -> bool:
        """Wait until a request may be sent, and take it; False as soon as ``stop`` is set."""
        while not stop.is_set():
            wait = self.wait_time()
            if wait == 0.0:
                return True
            stop.wait(wait)
        return False

    def try_take(self) -> bool:
        """Take a request that is not urgent, if it may be sent now; ask again soon if not."""
        return self.wait_time(urgent=False) == 0.0

    def bar(self, seconds: float) -> None:
        """Pause all requests, because the service refused one as too many."""
        with self._lock:
            self._barred_until = max(self._barred_until, self._clock() + seconds)


def shared_rate_limit(name: str) -> RateLimit:
    """The account of that name in this process: the same object as long as anybody holds it."""
    with _accounts_lock:
        rate_limit = _accounts.get(name)
        if rate_limit is None:
            rate_limit = _accounts[name] = RateLimit()
        return rate_limit
