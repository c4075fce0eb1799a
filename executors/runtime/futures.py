"""Threads that settle futures and run the callbacks of users, which may wait."""

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

#: Seconds after which a callback counts as blocked, so that other deliveries need another thread.
_PATIENCE: Final = 0.2
#: Seconds after which an idle extra thread ends.
_IDLE: Final = 2.0


class Delivery:
    """Settles futures in order on one thread, and on further threads while callbacks block it.

    Args:
        name: Prefix of the names of the threads.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._deliveries: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._busy_since: dict[int, float] = {}
        self._closed = False
        self._add_thread()

    def settle(self, future: Future[Any], value: Any, error: BaseException | None) -> None:
        """Queue the exception of a future, or its result if ``error`` is None. Never blocks."""
        if self._closed and not self._threads:
            self._open(future, value, error)
        else:
            self._deliveries.put(partial(self._open, future, value, error))

    def run(self, callback: Callable[[Future[Any]], object], future: Future[Any]) -> None:
        """Run a callback here if this thread settles futures; otherwise queue it for one that does."""
        if self._closed or threading.get_ident() in self._busy_since:
            callback(future)
        else:
            self._deliveries.put(partial(callback, future))

    def tend(self, now: float) -> None:
        """Add a thread if callbacks block all of them; called periodically with `time.monotonic`."""
        if self._deliveries.empty():
            return
        with self._lock:
            busy = list(self._busy_since.values())
            stuck = len(busy) == len(self._threads) and all(now - since > _PATIENCE for since in busy)
        if stuck:  # a callback that waits for the pool needs one more thread, its own callbacks another
            self._add_thread()

    def close(self, timeout: float) -> bool:
        """Settle the queued futures and end; return False if callbacks still run after ``timeout`` seconds."""
        end = time.monotonic() + timeout
        self._closed = True
        while time.monotonic() < end:
            with self._lock:
                threads = list(self._threads)
            if not threads:
                return True
            for _ in threads:
                self._deliveries.put(None)
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
        try:
            thread.start()
        except RuntimeError as error:  # no more threads now; `tend` tries again
            with self._lock:
                self._threads.discard(thread)
            logger.warning("%s cannot start: %s", thread.name, error)

    def _work(self, idle: float | None) -> None:
        me = threading.get_ident()
        try:
            while True:
                try:
                    delivery = self._deliveries.get(timeout=idle)
                except Empty:
                    return
                if delivery is None:
                    return
                self._busy_since[me] = time.monotonic()
                try:
                    delivery()
                except BaseException:
                    # Also SystemExit: a callback of a user must not end the thread.
                    logger.exception("A callback of a future failed, or a future could not be settled")
                del delivery  # an idle thread keeps no result alive
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
    """The future of one task. It cannot be cancelled: its endpoint cannot stop a running task.

    Callbacks run on a thread of the pool, also those added after the future was settled. (`Future` would run these in
    the thread that adds them. For a task that ends immediately, that is Parsl's only launch thread, and a callback that
    waits for a further task would deadlock.)

    Args:
        number: Task id in the events. Parsl's log joins its own task ids with this attribute.
        delivery: Settles the future.
    """

    def __init__(self, number: int, delivery: Delivery) -> None:
        super().__init__()
        self.parsl_executor_task_id = number
        #: Attribution of its failure, if it failed.
        self.verdict: Attribution | None = None
        self._delivery = delivery

    def cancel(self) -> bool:
        """Return False: a task cannot be cancelled."""
        return False

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        """Have ``fn`` called with this future on a thread of the pool once it is settled."""
        super().add_done_callback(lambda me: self._delivery.run(fn if self.verdict is None else partial(_seen, fn), me))


#: Per thread: the failed future whose callbacks it runs.
_settling = threading.local()


def settling() -> TaskFuture | None:
    """Return the failed future whose callback this thread runs; Parsl calls its retry handler inside one."""
    return getattr(_settling, "future", None)


def _seen(callback: Callable[[Future[Any]], object], future: Future[Any]) -> None:
    before = settling()
    _settling.future = future
    try:
        callback(future)
    finally:
        _settling.future = before
