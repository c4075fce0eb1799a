"""Tasks on their way to a service and back: waiting to be sent, accepted, doubted, and settled once."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any


class RemoteTask:
    """One task that was given to a service, with the future that is ours and the one that is the service's."""

    __slots__ = (
        "_inner", "accepted_at", "adopted", "args", "code", "config", "digest", "function", "future", "is_canary",
        "kwargs", "resources", "settled", "size",
    )  # fmt: skip

    def __init__(
        self,
        function: Callable[..., Any],
        code: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        size: int,
        resources: dict[str, Any] | None,
        config: dict[str, Any] | None,
        *,
        is_canary: bool = False,
    ) -> None:
        self.function = function
        self.code = code
        self.args = args
        self.kwargs = kwargs
        self.size = size
        self.resources = resources
        self.config = config
        self.future: Future[Any] = Future()
        self.is_canary = is_canary
        self.settled = False
        #: The id of the same task, sent by a process before this one.
        self.adopted: str | None = None
        #: What it is known by in a journal.
        self.digest = ""
        self.accepted_at: float | None = None
        self._inner: Future[Any] | None = None

    def sent(self, inner: Future[Any]) -> None:
        """Register the future that the SDK returned for the task."""
        self._inner = inner

    @property
    def inner(self) -> Future[Any]:
        """The future of the service's library."""
        if self._inner is None:
            raise RuntimeError("the task was not handed over")
        return self._inner

    @property
    def task_id(self) -> str | None:
        """Under which the service knows it, once it has accepted it."""
        return self.adopted or getattr(self._inner, "task_id", None)

    def is_answered(self) -> bool:
        """The service has accepted or refused it."""
        return self.task_id is not None or self.inner.done()

    def why_ended(self) -> BaseException | None:
        """The exception it ended with, if it has."""
        if self._inner is None or not self._inner.done():
            return None
        try:
            return self._inner.exception()
        except CancelledError as cancelled:
            return cancelled


class RemoteTasks:
    """All tasks of one endpoint that are on their way. Usable from any thread; nothing but `take` waits."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[RemoteTask] = deque()
        self._open: dict[int, RemoteTask] = {}
        self._doubted: dict[int, RemoteTask] = {}
        self._is_closed = False

    def put(self, post: RemoteTask) -> None:
        """To be sent; dropped once closed."""
        with self._changed:
            if not self._is_closed:
                self._waiting.append(post)
                self._changed.notify()

    def take(self, most: int, size: int, limit: float) -> list[RemoteTask]:
        """The next to be sent together, with the same wishes and of no more than ``size`` bytes, unless one is larger.

        Waits for the first, at most ``limit`` seconds.
        """
        end = time.monotonic() + limit
        with self._changed:
            while not self._waiting and not self._is_closed and (left := end - time.monotonic()) > 0.0:
                self._changed.wait(left)
            batch: list[RemoteTask] = []
            while self._waiting and len(batch) < most:
                post = self._waiting[0]
                size -= post.size
                if batch and (size < 0 or (post.resources, post.config) != (batch[0].resources, batch[0].config)):
                    break
                batch.append(self._waiting.popleft())
            return batch

    def accepted(self, post: RemoteTask, at: float) -> None:
        """The service has it. What was needed to send it is forgotten, unless it may have to be sent again."""
        post.accepted_at = at
        if post.adopted is None:
            post.args, post.kwargs = (), {}
        with self._changed:
            self._open[id(post)] = post

    def again(self, post: RemoteTask) -> None:
        """The service does not have it after all: it is to be sent."""
        post.adopted = post.accepted_at = None
        with self._changed:
            self._open.pop(id(post), None)
            self._doubted.pop(id(post), None)
        self.put(post)

    def doubt(self, post: RemoteTask) -> None:
        """Nobody waits for its result any more: the service must be asked."""
        with self._changed:
            if id(post) in self._open:
                self._doubted[id(post)] = post

    def doubted(self) -> list[RemoteTask]:
        """Those in doubt."""
        with self._changed:
            return list(self._doubted.values())

    def open(self) -> list[RemoteTask]:
        """Those accepted and not settled."""
        with self._changed:
            return list(self._open.values())

    def accepted_before(self, at: float) -> list[RemoteTask]:
        """Those of them that were accepted before then."""
        return [post for post in self.open() if post.accepted_at is not None and post.accepted_at < at]

    def settle(self, post: RemoteTask, value: Any = None, error: BaseException | None = None) -> bool:
        """End its future, once; False if it has ended already."""
        with self._changed:
            self._open.pop(id(post), None)
            self._doubted.pop(id(post), None)
            if post.settled:
                return False
            post.settled = True
        if error is not None:
            post.future.set_exception(error)
        else:
            post.future.set_result(value)
        return True

    def close(self) -> None:
        """Nothing is sent any more."""
        with self._changed:
            self._is_closed = True
            self._waiting.clear()
            self._changed.notify_all()
