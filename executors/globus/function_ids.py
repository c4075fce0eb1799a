"""One text for each function, such as the id that a service gave it: found out once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary


class PerFunction:
    """A text for each function, for as long as the function lives."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: WeakKeyDictionary[Callable[..., Any], str] = WeakKeyDictionary()

    def of(self, function: Callable[..., Any], find_out: Callable[[Callable[..., Any]], str]) -> str:
        """The text of a function; if that is new, it is found out.

        Raises:
            Exception: whatever ``find_out`` raises; the next call tries again.
        """
        with contextlib.suppress(TypeError), self._lock:  # what cannot be hashed or referred to is not remembered
            known = self._known.get(function)
            if known is not None:
                return known
        found = find_out(function)
        with contextlib.suppress(TypeError), self._lock:
            self._known[function] = found
        return found
