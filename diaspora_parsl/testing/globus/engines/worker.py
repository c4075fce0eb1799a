"""The worker of an emulated endpoint: runs tasks as `globus_compute_endpoint` does, with only the SDK."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import struct
import sys
import threading
import time
import traceback
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from globus_compute_common import messagepack
from globus_compute_common.messagepack.message_types import Result, Task, TaskTransition
from globus_compute_common.messagepack.message_types.result import ResultErrorDetails
from globus_compute_common.tasks import ActorName, TaskState
from globus_compute_sdk.errors import MaxResultSizeExceeded
from globus_compute_sdk.sdk.utils import get_env_details
from globus_compute_sdk.serialize import ComputeSerializer

#: Length before each message on the channel.
LENGTH: Final = struct.Struct(">I")
#: First message of a worker.
READY: Final = b"ready"
_PART: Final = 2**20


def execute(body: bytes, serializers: list[str], endpoint: str, limit: int) -> bytes:
    """Run one task.

    Args:
        body: Packed task.
        serializers: Import paths of the result serializers; empty: the default ones.
        endpoint: Id of the endpoint.
        limit: Largest result in bytes.

    Returns:
        The packed result: the return value, or the traceback of the exception.
    """
    task = messagepack.unpack(body)
    if not isinstance(task, Task):
        raise TypeError(f"not a task: {type(task).__name__}")
    os.environ["GC_TASK_UUID"] = str(task.task_id)
    begin = _transition(TaskState.EXEC_START)
    details: dict[Any, Any] = {**get_env_details(), "endpoint_id": endpoint}
    error = None
    try:
        serializer = ComputeSerializer()
        function, args, kwargs = serializer.unpack_and_deserialize(task.task_buffer)
        data = serializer.serialize_from_list(function(*args, **kwargs), serializers)
        if len(data) > limit:
            raise MaxResultSizeExceeded(len(data), limit)  # noqa: TRY301 - reported like a user's exception
    except MaxResultSizeExceeded as exceeded:
        data = repr(exceeded)
        error = ResultErrorDetails(code=type(exceeded).__name__, user_message=f"remote error: {exceeded}")
    except Exception as raised:  # noqa: BLE001 - an exception of user code is its result
        data = "".join(traceback.format_exception(type(raised), raised, _users_part(raised.__traceback__)))
        error = ResultErrorDetails(
            code="RemoteExecutionError", user_message="An error occurred during the execution of this task"
        )
    statuses = [begin, _transition(TaskState.EXEC_END)]
    return messagepack.pack(
        Result(task_id=task.task_id, data=data, details=details, error_details=error, task_statuses=statuses)
    )


def _users_part(trace: TracebackType | None, levels: int = 2) -> TracebackType | None:
    """Drop the frames that every task has, as a real endpoint does."""
    while levels and trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
        levels -= 1
    return trace


def _transition(state: TaskState) -> TaskTransition:
    return TaskTransition(timestamp=time.time_ns(), state=state, actor=ActorName.WORKER)


def connect() -> tuple[socket.socket, queue.SimpleQueue[bytes]]:
    """Return the channel, which is standard input, and a queue of its incoming messages.

    A close at the other end kills this process and its children.
    """
    channel = socket.socket(fileno=os.dup(0))
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)  # keep the channel from user code
    os.register_at_fork(after_in_child=channel.close)  # else a child of user code keeps the channel open
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(channel, inbox), daemon=True).start()
    return channel, inbox


def _listen(channel: socket.socket, inbox: queue.SimpleQueue[bytes]) -> None:
    """Queue incoming messages; kill this process and its children when the channel closes."""
    with contextlib.suppress(OSError, EOFError):
        while True:
            (length,) = LENGTH.unpack(_receive(channel, LENGTH.size))
            inbox.put(_receive(channel, length))
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(0)


def _receive(channel: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = channel.recv(min(count - len(data), _PART))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


def send(channel: socket.socket, message: bytes) -> None:
    """Send a message through the channel."""
    channel.sendall(LENGTH.pack(len(message)) + message)


def main(endpoint: str, limit: int, folder: Path) -> None:
    """Run the tasks from standard input, a socket, until it closes.

    Args:
        endpoint: Id of the endpoint.
        limit: Largest result in bytes.
        folder: Folder where functions run.
    """
    channel, inbox = connect()
    send(channel, READY)
    while True:
        serializers, _, body = inbox.get().partition(b"\n")
        os.chdir(folder)
        result = execute(body, json.loads(serializers), endpoint, limit)
        sys.stdout.flush()
        sys.stderr.flush()
        send(channel, result)


if __name__ == "__main__":
    main(str(uuid.UUID(sys.argv[1])), int(sys.argv[2]), Path(sys.argv[3]))
