"""Child processes of an endpoint, and the channels to them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from globus_compute_common import messagepack
from globus_compute_common.messagepack import message_types
from msgspec import Struct

from diaspora_parsl.testing.globus.ledger import Task

#: Seconds in which a killed process must end, and between two polls of it.
_END: Final = 10.0
_POLL: Final = 0.005
#: Bytes of the length before each message, as in `worker`, which this process does not import.
_LENGTH: Final = 4


class Assignment(Struct, frozen=True):
    """A task with its payload."""

    task: Task
    payload: str
    """Function and arguments as packed by the client."""
    serializers: tuple[str, ...] = ()
    """Import paths of the result serializers; empty: the default ones."""

    def message(self) -> bytes:
        """Encode it for a worker: a line with the serializers as JSON, then the packed task."""
        body = messagepack.pack(message_types.Task(task_id=uuid.UUID(self.task.id), task_buffer=self.payload))
        return json.dumps(self.serializers).encode() + b"\n" + body


class ChildProcess:
    """A program of this package with a message channel, in its own process group.

    The process ends when its channel closes, and thus with its owner. Call all methods in the thread of the loop.

    Args:
        command: Module of the program and its arguments.
        variables: Environment variables added to those of this process.
        output: File that receives its output.
    """

    def __init__(self, command: Sequence[str], variables: Mapping[str, str], output: Path) -> None:
        #: Set by its owner once it has ended and its loss is reported.
        self.gone = asyncio.Event()
        self._channel, theirs = socket.socketpair()
        self._writer: asyncio.StreamWriter | None = None
        with theirs, output.open("ab") as out:
            self._process = subprocess.Popen(  # noqa: S603 - a program of this package
                [sys.executable, "-m", *command],
                stdin=theirs.fileno(),
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **variables},
                # Not a session: the kernel continues and ends a stopped group whose parent in the same session died.
                process_group=0,
            )

    @property
    def pid(self) -> int:
        """Id of the process and of its group."""
        return self._process.pid

    async def messages(self) -> AsyncIterator[bytes]:
        """Yield its messages until it ends. Only one reader is allowed."""
        reader, self._writer = await asyncio.open_connection(sock=self._channel)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                length = int.from_bytes(await reader.readexactly(_LENGTH))
                yield await reader.readexactly(length)

    def send(self, message: bytes) -> None:
        """Send a message while `messages` is read.

        Raises:
            RuntimeError: `messages` is not read.
        """
        if self._writer is None:
            raise RuntimeError(f"no reader of the messages of process {self.pid}")
        self._writer.write(len(message).to_bytes(_LENGTH) + message)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and its children."""
        if self._process.returncode is None:  # until it is reaped, its group id is not reused
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it ended meanwhile
                os.killpg(self._process.pid, number)

    async def end(self) -> None:
        """Kill the process group and wait until the process has ended.

        Raises:
            TimeoutError: The process survives SIGKILL.
        """
        self.signal(signal.SIGKILL)
        if self._writer is not None:
            self._writer.transport.abort()
        else:
            self._channel.close()
        async with asyncio.timeout(_END):
            while self._process.poll() is None:  # noqa: ASYNC110 - see below
                await asyncio.sleep(_POLL)  # no portable event exists


class WorkerProcess(ChildProcess):
    """A worker process, which runs one task at a time.

    Args:
        number: Number of the worker at its endpoint.
        arguments: Arguments of the program.
        variables: Environment variables added to those of this process.
        output: File that receives the output of user code.
    """

    def __init__(self, number: int, arguments: list[str], variables: Mapping[str, str], output: Path) -> None:
        super().__init__(["diaspora_parsl.testing.globus.engines.worker", *arguments], variables, output)
        self.number = number
        self.is_ready = False
        #: The running task.
        self.job: Assignment | None = None
        #: Its result while it is delayed.
        self.result: bytes | None = None
        #: Loop times of its begin and of the delivery of its result.
        self.began = self.due = 0.0
        #: Factor on its run time.
        self.slowness = 1.0
        #: Error that a real endpoint reports for the killed process; None: not killed.
        self.loss_error: str | None = None

    @property
    def is_idle(self) -> bool:
        """Whether it can run a task now."""
        return self.is_ready and self.job is None and self.loss_error is None

    def run(self, job: Assignment, now: float, slowness: float) -> None:
        """Run a task; the worker must be idle."""
        if not self.is_idle:
            raise RuntimeError(f"worker {self.number} is not idle")
        self.job, self.began, self.slowness = job, now, slowness
        self.send(job.message())

    def take(self) -> tuple[Assignment, bytes]:
        """Return the task and its result, and make the worker idle."""
        if self.job is None or self.result is None:
            raise RuntimeError(f"worker {self.number} has no result")
        done = self.job, self.result
        self.job = self.result = None
        return done

    def kill(self, loss_error: str) -> None:
        """Kill the process group; the first error given is reported."""
        if self.loss_error is None:
            self.loss_error = loss_error
        self.signal(signal.SIGKILL)
