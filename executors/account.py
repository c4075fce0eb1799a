"""Requests to a service that allows only so many: shared by all endpoints of one account."""

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

_accounts: WeakValueDictionary[str, Account] = WeakValueDictionary()
_accounts_lock: Final = threading.Lock()


class Account:
    """At most ``most`` requests in ``window`` seconds, whichever thread they come from.

    Args:
        most: requests.
        window: seconds.
        clock: tells the time, in seconds.
    """

    def __init__(self, most: int = _MOST, window: float = _WINDOW, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._window = window
        self._clock = clock
        self._lock = threading.Lock()
        self._taken: deque[float] = deque()
        self._barred_until = float("-inf")

    def wait_time(self, *, reserve: float = 0.0) -> float:
        """Take one request if it may be sent now, and return 0; else seconds until it is worth asking again.

        Args:
            reserve: share of the requests that is left to those who ask for less; for what is not urgent.
        """
        with self._lock:
            now = self._clock()
            while self._taken and self._taken[0] <= now - self._window:
                self._taken.popleft()
            allowed = max(1, int(self._most * (1.0 - reserve)))
            wait = self._barred_until - now
            if len(self._taken) >= allowed:
                wait = max(wait, self._taken[len(self._taken) - allowed] + self._window - now)
            if wait > 0.0:
                return wait
            self._taken.append(now)
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
        """Take a request that is not urgent, if half of them are still free."""
        return self.wait_time(reserve=0.5) == 0.0

    def bar(self, seconds: float) -> None:
        """The service said that it got too many: none for so long."""
        with self._lock:
            self._barred_until = max(self._barred_until, self._clock() + seconds)


def account_called(name: str) -> Account:
    """The account of that name in this process: the same object as long as anybody holds it."""
    with _accounts_lock:
        account = _accounts.get(name)
        if account is None:
            account = _accounts[name] = Account()
        return account
