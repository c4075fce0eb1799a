"""Processes beside ours for code that crashes, hangs and eats memory: started when needed, replaced when they died."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import IO, Final, Generic, Literal, NamedTuple, TypeVar

#: Seconds allowed to start a process, and beyond a limit that the kernel keeps.
START_LIMIT: Final = 300.0
#: Bytes that a process may write to its error output before they are dropped.
_LONGEST_LOG: Final = 1_000_000
_NO_MEMORY: Final = re.compile(r"bad_alloc|memory allocation|[Cc]annot allocate|[Oo]ut of memory|MemoryError")
#: One core each: as many processes run as there are cores, and sums in another order would give other scores.
_ONE_THREAD: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)

T = TypeVar("T")
R = TypeVar("R")
Kind = Literal["timeout", "memory", "crash", "raised"]


class FailedError(Exception):
    """A call that gave no value: its argument's fault."""

    def __init__(self, kind: Kind, detail: str) -> None:
        super().__init__(kind, detail)
        self.kind: Kind = kind
        self.detail = detail


class NotUsableError(Exception):
    """A process that cannot be started, or cannot import what it is asked for: this place's fault."""


class Child:
    """One process that runs functions, one at a time, for one thread.

    Attributes:
        generation: how many processes there have been; what was loaded in an earlier one is gone.
    """

    def __init__(self) -> None:
        self.generation = 0
        self._retired = False
        self._end: weakref.finalize[..., Child] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._log: IO[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Of the process, if there is one."""
        return self._process.pid if self._process is not None else None

    def call(self, function: Callable[..., R], *arguments: object, timeout: float, memory: int = 0) -> R:
        """Run a function in the process.

        Args:
            function: importable there under its name.
            arguments: picklable.
            timeout: seconds after which the kernel ends the process.
            memory: MB that the call may map beyond what is mapped already; 0 for no limit.

        Raises:
            FailedError: the call took too long or too much, crashed the process, or raised.
            NotUsableError: it is this place that cannot do it.
        """
        process, pipe, log = self.start()
        try:
            pipe.send((function, arguments, timeout, memory))
            if not pipe.poll(START_LIMIT + timeout):
                self.close()
                raise FailedError("timeout", "The process did not answer and was replaced.")
            word, value = pipe.recv()
        except (EOFError, OSError):
            code = process.wait(timeout=10)
            said = _tail(log)
            self.close()
            raise _died(code, said, timeout, memory) from None
        if os.fstat(log.fileno()).st_size > _LONGEST_LOG:
            os.ftruncate(log.fileno(), 0)
        if word == "unavailable":
            raise NotUsableError(value)
        if word == "memory":
            self.close()  # C++ that ran out of memory may be in any state
        if word != "done":
            raise FailedError(word, value)
        answer: R = value
        return answer

    def start(self) -> tuple[subprocess.Popen[bytes], Connection, IO[bytes]]:
        """Make sure that there is a living process.

        Raises:
            NotUsableError: it does not start.
        """
        if self._process is None or self._pipe is None or self._log is None or self._process.poll() is not None:
            self.close()
            if self._retired:
                raise NotUsableError("it was closed")
            ours, theirs = Pipe()
            log: IO[bytes] = tempfile.TemporaryFile("a+b")  # noqa: SIM115 - closed by _end; to append, so that it can be cut
            with theirs:
                process = subprocess.Popen(  # noqa: S603 - our own module
                    [sys.executable, "-m", "diaspora_parsl.campaigns.sandbox.child", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stderr=log,
                    env={**os.environ, **_ONE_THREAD},
                )
            self.generation += 1
            # Also runs when the worker's interpreter ends, and when a thread that owned this object is gone.
            self._end = weakref.finalize(self, _end, process, ours, log)
            self._process, self._pipe, self._log = process, ours, log
            try:
                if not ours.poll(START_LIMIT):
                    self.close()
                    raise NotUsableError(f"it did not start within {START_LIMIT:g} s")
                ours.recv()
            except EOFError:
                code, said = process.wait(), _tail(log)
                self.close()
                raise NotUsableError(f"it ended with exit code {code} before it was ready. {said}".strip()) from None
        return self._process, self._pipe, self._log

    def close(self) -> None:
        """End the process; idempotent."""
        if self._end is not None:
            self._end()
        self._end = self._process = self._pipe = self._log = None

    def retire(self) -> None:
        """End the process, from any thread, for good: it is not replaced."""
        self._retired = True
        process = self._process
        if process is not None:
            process.kill()  # the waiting thread reads the end of the pipe, and closes the rest


def _end(process: subprocess.Popen[bytes], pipe: Connection, log: IO[bytes]) -> None:
    pipe.close()
    process.kill()
    process.wait()
    log.close()


def _tail(log: IO[bytes]) -> str:
    """The last words of a process, short enough for a sentence."""
    log.seek(max(0, os.fstat(log.fileno()).st_size - 2000))
    lines = log.read().decode(errors="replace").split("\n")
    return " ".join(" ".join(line.strip() for line in lines if line.strip()).split())[-300:]


def _died(code: int, said: str, timeout: float, memory: int) -> FailedError:
    if code == -signal.SIGALRM:
        return FailedError("timeout", f"Longer than the limit of {timeout:g} s.")
    if memory and _NO_MEMORY.search(said):
        return FailedError("memory", f"More than the limit of {memory} MB.")
    return FailedError("crash", f"The process ended with exit code {code}. {said}".strip())


class Spoilt(NamedTuple, Generic[T]):
    """An item on which a process died."""

    item: T
    kind: Kind
    detail: str


def in_processes(
    function: Callable[[list[T]], R],
    chunks: Iterable[list[T]],
    *,
    processes: int,
    timeout: float,
    alone: float,
) -> Generator[R | Spoilt[T]]:
    """Map a function over lists in local processes, in order, with only a few of them in memory.

    If a process dies on a list, its items are tried one by one; items on which one dies again are reported as spoilt.

    Args:
        function: importable; takes a list.
        chunks: lists of items.
        processes: that work at a time.
        timeout: seconds for one list.
        alone: seconds for an item that is tried by itself.

    Raises:
        NotUsableError: the processes do not start, or cannot import the function.
    """
    children = [Child() for _ in range(processes)]
    idle: SimpleQueue[Child] = SimpleQueue()
    for child in children:
        idle.put(child)

    def work(chunk: list[T]) -> list[R | Spoilt[T]]:
        child = idle.get()
        try:
            return _within(child, function, chunk, timeout, alone)
        finally:
            idle.put(child)

    window: deque[Future[list[R | Spoilt[T]]]] = deque()
    try:
        with ThreadPoolExecutor(processes, "local-process") as pool:
            try:
                for chunk in chunks:
                    window.append(pool.submit(work, chunk))
                    if len(window) > 2 * processes:
                        yield from window.popleft().result()
                while window:
                    yield from window.popleft().result()
            finally:
                for future in window:
                    future.cancel()
                for child in children:
                    child.retire()
    finally:
        for child in children:
            child.close()


def _within(
    child: Child, function: Callable[[list[T]], R], chunk: list[T], timeout: float, alone: float
) -> list[R | Spoilt[T]]:
    try:
        return [child.call(function, chunk, timeout=timeout)]
    except FailedError as error:
        if len(chunk) == 1:
            return [Spoilt(chunk[0], error.kind, error.detail)]
        return [one for item in chunk for one in _within(child, function, [item], alone, alone)]
