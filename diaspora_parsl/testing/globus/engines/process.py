"""The processes of an endpoint, as the endpoint that owns them sees them."""

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

#: Seconds that a killed process may take to end, and how long to wait between two looks.
_END: Final = 10.0
_LOOK: Final = 0.005
#: Before each message on the channel: how long it is. The same as in `worker`, which this process does not import.
_LENGTH: Final = 4


class Assignment(Struct, frozen=True):
    """A task with what it needs to run."""

    task: Task
    payload: str
    """The function and its arguments, as the client packed them."""
    serializers: tuple[str, ...] = ()
    """Import paths of the strategies that the client wants for the result; none: the usual ones."""

    def message(self) -> bytes:
        """The serializers in a line of JSON, then the packed task: what the process that runs it is sent."""
        body = messagepack.pack(message_types.Task(task_id=uuid.UUID(self.task.id), task_buffer=self.payload))
        return json.dumps(self.serializers).encode() + b"\n" + body


class ChildProcess:
    """A program of this package that is talked to through a channel, the leader of a process group of its own.

    The process ends when its channel does, so that it outlives nobody who owns it. All methods must be called in the
    thread of the loop.

    Args:
        command: module of the program and its arguments.
        variables: of its environment, besides those of this process.
        output: file to which what it prints is appended.
    """

    def __init__(self, command: Sequence[str], variables: Mapping[str, str], output: Path) -> None:
        #: Set by its owner when it has ended and what was to be said is said.
        self.gone = asyncio.Event()
        self._channel, theirs = socket.socketpair()
        self._writer: asyncio.StreamWriter | None = None
        with theirs, output.open("ab") as out:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", *command],
                stdin=theirs.fileno(),
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **variables},
                # Not a session: the kernel continues and ends a stopped group whose parent, of the same session, died.
                process_group=0,
            )

    @property
    def pid(self) -> int:
        """Of the process, and of its group."""
        return self._process.pid

    async def messages(self) -> AsyncIterator[bytes]:
        """What it says, until it ends. At most one reader."""
        reader, self._writer = await asyncio.open_connection(sock=self._channel)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                length = int.from_bytes(await reader.readexactly(_LENGTH))
                yield await reader.readexactly(length)

    def send(self, message: bytes) -> None:
        """Tell it something; somebody must be reading what it says.

        Raises:
            RuntimeError: nobody does.
        """
        if self._writer is None:
            raise RuntimeError(f"nobody listens to process {self.pid}")
        self._writer.write(len(message).to_bytes(_LENGTH) + message)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and its children."""
        if self._process.returncode is None:  # as long as nobody took its status, its group is ours
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it ended meanwhile
                os.killpg(self._process.pid, number)

    async def end(self) -> None:
        """Kill what is left, and wait until it is gone.

        Raises:
            TimeoutError: it does not die.
        """
        self.signal(signal.SIGKILL)
        if self._writer is not None:
            self._writer.transport.abort()
        else:
            self._channel.close()
        async with asyncio.timeout(_END):
            while self._process.poll() is None:  # noqa: ASYNC110 - see below
                await asyncio.sleep(_LOOK)  # there is no event for it on every platform


class WorkerProcess(ChildProcess):
    """Runs one task at a time.

    Args:
        number: of the worker at its endpoint.
        arguments: of the program.
        variables: of its environment, besides those of this process.
        output: file to which what user code prints is appended.
    """

    def __init__(self, number: int, arguments: list[str], variables: Mapping[str, str], output: Path) -> None:
        super().__init__(["diaspora_parsl.testing.globus.engines.worker", *arguments], variables, output)
        self.number = number
        self.is_ready = False
        #: What runs there now.
        self.job: Assignment | None = None
        #: What came of it, as long as it is held back.
        self.result: bytes | None = None
        #: When it began and when its result is due, by the clock of the loop.
        self.began = self.due = 0.0
        #: It is to take so many times as long as it does.
        self.slowness = 1.0
        #: Why the process was killed, in the words of a real endpoint; None: it was not.
        self.epitaph: str | None = None

    @property
    def is_idle(self) -> bool:
        """It can take a task now."""
        return self.is_ready and self.job is None and self.epitaph is None

    def run(self, job: Assignment, now: float, slowness: float) -> None:
        """Give it a task; it must be idle."""
        if not self.is_idle:
            raise RuntimeError(f"worker {self.number} is not idle")
        self.job, self.began, self.slowness = job, now, slowness
        self.send(job.message())

    def take(self) -> tuple[Assignment, bytes]:
        """The task and its result, which has come; the worker is idle again."""
        if self.job is None or self.result is None:
            raise RuntimeError(f"worker {self.number} has no result")
        done = self.job, self.result
        self.job = self.result = None
        return done

    def kill(self, epitaph: str) -> None:
        """Let it die at once, with what it does.

        Args:
            epitaph: see there; the first counts.
        """
        if self.epitaph is None:
            self.epitaph = epitaph
        self.signal(signal.SIGKILL)
