"""The program that a `GlobusComputeEngine` runs in, for an emulated endpoint."""

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

#: Seconds between two looks at the engine.
_PERIOD: Final = 0.25
#: Seconds between two heartbeats inside it, and after how long it misses them.
_HEARTBEAT: Final = 1
_THRESHOLD: Final = 5


def make_engine(label: str, workers: int, nodes: int, folder: Path) -> GlobusComputeEngine:
    """An engine on this host, not started yet.

    Args:
        label: of the endpoint.
        workers: of each node.
        nodes: how many; each is a block.
        folder: for what user code prints, ``output.log``, and where functions run, ``tasks``.
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
    """Passes tasks on to a started engine, and results and counts back."""

    def __init__(self, engine: GlobusComputeEngine, channel: socket.socket) -> None:
        self._engine = engine
        self._channel = channel
        #: Results come in a thread of the engine.
        self._lock = threading.Lock()
        self._told: dict[str, int] = {}

    def submit(self, message: bytes) -> None:
        """Give the engine a task: serializers in a line of JSON, then what the client packed."""
        serializers, _, body = message.partition(b"\n")
        task = messagepack.unpack(body)
        if not isinstance(task, Task):
            raise TypeError(f"not a task: {type(task).__name__}")
        future = GCFuture(task.task_id)
        future.add_done_callback(functools.partial(self._tell_result, task.task_id))
        self._engine.submit(future, body, resource_specification={}, result_serializers=json.loads(serializers))

    def tell_counts(self) -> None:
        """Say what the engine says of itself, if it is something new.

        Raises:
            Exception: the engine gave up; a real endpoint ends then, too.
        """
        if self._engine.executor_exception is not None:
            raise self._engine.executor_exception
        report = self._engine.get_status_report().global_state
        counts = {name: number for name, number in report.items() if type(number) is int}
        if counts != self._told:
            self._told = counts
            self._send(json.dumps(counts).encode())

    def _tell_result(self, task: uuid.UUID, future: GCFuture) -> None:
        self._send(str(task).encode() + b"\n" + future.result())

    def _send(self, message: bytes) -> None:
        with self._lock:
            send(self._channel, message)


def main(label: str, endpoint: str, workers: int, nodes: int, folder: Path) -> None:
    """Run what comes through standard input, a socket, until it is closed.

    Args:
        label: of the endpoint.
        endpoint: its id.
        workers: of each node.
        nodes: how many.
        folder: see `make_engine`.
    """
    channel, inbox = connect()
    engine = make_engine(label, workers, nodes, folder)
    engine.start(endpoint_id=uuid.UUID(endpoint), run_dir=str(folder / f"engine-{os.getpid()}"))
    host = Host(engine, channel)
    look = time.monotonic()
    while True:
        try:
            host.submit(inbox.get(timeout=max(0.0, look - time.monotonic())))
        except queue.Empty:
            host.tell_counts()
            look = time.monotonic() + _PERIOD


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
