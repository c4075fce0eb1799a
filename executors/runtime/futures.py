"""Settling futures on threads of their own: what users attach to a future runs inline there, and may wait."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final

from diaspora_parsl.core.failures import Attribution

logger = logging.getLogger(__name__)

#: Seconds after which a delivery counts as waiting for something, so that others must not wait behind it.
_PATIENCE: Final = 0.2
#: Threads at most: a callback that waits for the pool needs one more, its own callbacks another, and so on.
_MOST: Final = 32
#: Seconds after which an extra thread that has nothing to do ends.
_IDLE: Final = 2.0


class Delivery:
    """Settles futures in order, on one thread; on further ones while callbacks of earlier futures are waiting.

    Args:
        name: of the threads.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._parcels: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._busy_since: dict[int, float] = {}
        self._closed = False
        self._add_thread()

    def settle(self, future: Future[Any], value: Any, error: BaseException | None) -> None:
        """Give ``future`` this result, or this exception if there is one. Never blocks."""
        self._parcels.put(partial(self._open, future, value, error))

    def run(self, callback: Callable[[Future[Any]], object], future: Future[Any]) -> None:
        """Run a callback on a thread that settles futures: at once if this is one, soon otherwise."""
        if self._closed or threading.get_ident() in self._busy_since:
            callback(future)
        else:
            self._parcels.put(partial(callback, future))

    def tend(self, now: float) -> None:
        """Call now and then, with `time.monotonic`: adds a thread if all are held up by callbacks."""
        if self._parcels.empty():
            return
        with self._lock:
            busy = list(self._busy_since.values())
            stuck = len(busy) == len(self._threads) and all(now - since > _PATIENCE for since in busy)
        if stuck and len(self._threads) < _MOST:
            self._add_thread()

    def close(self, timeout: float) -> bool:
        """Settle what is queued, then end; False if callbacks still run after ``timeout`` seconds."""
        end = time.monotonic() + timeout
        self._closed = True
        while time.monotonic() < end:
            with self._lock:
                threads = list(self._threads)
            if not threads:
                return True
            for _ in threads:
                self._parcels.put(None)
            me = threading.current_thread()
            for thread in threads:
                if thread is not me:
                    thread.join(max(0.0, min(0.1, end - time.monotonic())))
            self.tend(time.monotonic())
            if threads == [me]:
                return True
        return False

    def _add_thread(self) -> None:
        with self._lock:
            first = not self._threads
            thread = threading.Thread(
                target=self._work,
                args=(None if first else _IDLE,),
                name=f"{self._name}-{len(self._threads)}",
                daemon=True,
            )
            self._threads.add(thread)
        thread.start()

    def _work(self, idle: float | None) -> None:
        me = threading.get_ident()
        try:
            while True:
                try:
                    parcel = self._parcels.get(timeout=idle)
                except Empty:
                    return
                if parcel is None:
                    return
                self._busy_since[me] = time.monotonic()
                try:
                    parcel()
                except Exception:
                    logger.exception("A callback of a future failed, or a future could not be settled")
                del parcel  # an idle thread keeps no result alive
                del self._busy_since[me]
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    @staticmethod
    def _open(future: Future[Any], value: Any, error: BaseException | None) -> None:
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)


class TaskFuture(Future[Any]):
    """The future of one task. It cannot be cancelled: the task may run somewhere already, where nobody can stop it.

    Callbacks run on a thread of the pool's, also those added after it was settled. (`Future` would run these in the
    thread that adds them: for a task that ends at once that is Parsl's only launch thread, and a callback that waits
    for a further task would wait for ever.)

    Args:
        number: the task id in the events; under this name Parsl's log joins its own task ids with it.
        delivery: settles it.
    """

    def __init__(self, number: int, delivery: Delivery) -> None:
        super().__init__()
        self.parsl_executor_task_id = number
        #: Why it was failed, if it was.
        self.verdict: Attribution | None = None
        self._delivery = delivery

    def cancel(self) -> bool:
        """Refused."""
        return False

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        """Have ``fn`` called with this future once it is settled, on a thread of the pool's."""
        super().add_done_callback(lambda me: self._delivery.run(fn if self.verdict is None else partial(_seen, fn), me))


#: The failed future whose callbacks this thread runs.
_settling = threading.local()


def settling() -> TaskFuture | None:
    """The failed future of which this thread runs a callback now: Parsl's retry handler is called inside one."""
    return getattr(_settling, "future", None)


def _seen(callback: Callable[[Future[Any]], object], future: Future[Any]) -> None:
    before = settling()
    _settling.future = future
    try:
        callback(future)
    finally:
        _settling.future = before
