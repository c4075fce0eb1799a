"""The program that runs a `GlobusComputeEngine` for an emulated endpoint."""

from __future__ import annotations

import functools
import json
import os
import queue
import shlex
import socket
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Final

from globus_compute_common import messagepack
from globus_compute_common.messagepack.message_types import Task
from globus_compute_endpoint.engines import GlobusComputeEngine
from globus_compute_endpoint.engines.base import GCFuture
from parsl.launchers import SimpleLauncher
from parsl.providers import LocalProvider

from diaspora_parsl.testing.globus.engines.worker import connect, send
from diaspora_parsl.testing.local_sites import node_names

#: Seconds between two polls of the engine.
_PERIOD: Final = 0.25
#: Seconds between two heartbeats in the engine, and without one until a manager counts as lost.
_HEARTBEAT: Final = 1
_THRESHOLD: Final = 5


def make_engine(label: str, workers: int, nodes: int, folder: Path) -> GlobusComputeEngine:
    """Create an engine on this host without starting it.

    Args:
        label: Label of the endpoint.
        workers: Number of workers per node.
        nodes: Number of nodes; each is one block.
        folder: Folder of ``output.log``, the output of user code, and of ``tasks``, where functions run.
    """
    names = node_names(folder / "nodes", nodes, prefix=label)
    return GlobusComputeEngine(
        address="127.0.0.1",
        encrypted=False,
        max_workers_per_node=workers,
        cores_per_worker=1e-6,  # all nodes share the cores of this host
        heartbeat_period=_HEARTBEAT,
        heartbeat_threshold=_THRESHOLD,
        working_dir=str(folder / "tasks"),
        job_status_kwargs={"strategy_period": _HEARTBEAT},
        provider=LocalProvider(
            init_blocks=nodes,
            min_blocks=nodes,
            max_blocks=nodes,
            launcher=SimpleLauncher(),
            worker_init=f"exec >>{shlex.quote(str(folder / 'output.log'))} 2>&1\n{names}",
        ),
    )


class Host:
    """Passes tasks to a started engine, and results and counts back."""

    def __init__(self, engine: GlobusComputeEngine, channel: socket.socket) -> None:
        self._engine = engine
        self._channel = channel
        #: Results arrive in a thread of the engine.
        self._lock = threading.Lock()
        self._last_counts: dict[str, int] = {}

    def submit(self, message: bytes) -> None:
        """Submit a task: a line with the serializers as JSON, then the packed task."""
        serializers, _, body = message.partition(b"\n")
        task = messagepack.unpack(body)
        if not isinstance(task, Task):
            raise TypeError(f"not a task: {type(task).__name__}")
        future = GCFuture(task.task_id)
        future.add_done_callback(functools.partial(self._send_result, task.task_id))
        self._engine.submit(future, body, resource_specification={}, result_serializers=json.loads(serializers))

    def send_counts(self) -> None:
        """Send the counts of the engine if they changed.

        Raises:
            Exception: The engine failed; a real endpoint ends then, too.
        """
        if self._engine.executor_exception is not None:
            raise self._engine.executor_exception
        report = self._engine.get_status_report().global_state
        counts = {name: number for name, number in report.items() if type(number) is int}
        if counts != self._last_counts:
            self._last_counts = counts
            self._send(json.dumps(counts).encode())

    def _send_result(self, task: uuid.UUID, future: GCFuture) -> None:
        self._send(str(task).encode() + b"\n" + future.result())

    def _send(self, message: bytes) -> None:
        with self._lock:
            send(self._channel, message)


def main(label: str, endpoint: str, workers: int, nodes: int, folder: Path) -> None:
    """Run the tasks from standard input, a socket, until it closes; see `make_engine` for the arguments."""
    channel, inbox = connect()
    engine = make_engine(label, workers, nodes, folder)
    engine.start(endpoint_id=uuid.UUID(endpoint), run_dir=str(folder / f"engine-{os.getpid()}"))
    host = Host(engine, channel)
    next_poll = time.monotonic()
    while True:
        try:
            host.submit(inbox.get(timeout=max(0.0, next_poll - time.monotonic())))
        except queue.Empty:
            host.send_counts()
            next_poll = time.monotonic() + _PERIOD


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
