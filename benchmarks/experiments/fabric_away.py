"""The fabric is away for a minute: do tasks notice?"""

from __future__ import annotations

import secrets
import signal
import statistics
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from benchmarks import tasks
from benchmarks.kit.experiment import Case, Column, Experiment, Target, at_most, every


def cases(quick: bool) -> list[Case]:  # noqa: FBT001 - see Experiment
    """A server that is gone refuses at once, one that hangs answers never."""
    away = 8 if quick else 60
    spec = {"away": away, "per_second": 20, "wait": 60}
    return [
        Case("pool", f"its server is {how}", {**spec, "how": how}, away + 120)
        for how in ("killed and started again", "stopped and continued")
    ]


def measure(spec: dict[str, Any], record: Callable[[dict[str, Any]], None]) -> None:
    """A steady stream of tasks on two endpoints, before, during and after."""
    from benchmarks.peers import parsl_side as side  # noqa: PLC0415 - its package is not where other peers live
    from diaspora_parsl import events as ev  # noqa: PLC0415
    from diaspora_parsl.fabric.publisher import Publisher  # noqa: PLC0415
    from diaspora_parsl.fabric.transports.redis.embedded_server import find_server, free_port, write_config  # noqa: PLC0415

    costs: list[tuple[float, float]] = []
    untimed = Publisher.emit

    def emit(self: Publisher, *arguments: Any, **named: Any) -> None:
        began = time.perf_counter()
        untimed(self, *arguments, **named)
        costs.append((time.time(), time.perf_counter() - began))

    Publisher.emit = emit  # type: ignore[method-assign] # to time it from outside
    folder = Path("server")
    folder.mkdir()
    password, port = secrets.token_urlsafe(12), free_port()
    command = [str(find_server()), str(write_config(folder, port, password))]
    url = f"redis://:{password}@127.0.0.1:{port}/0"
    server = subprocess.Popen(command)
    try:
        executors = [side.executor_of(side.site(label, workers=2)) for label in ("alpha", "beta")]
        with side.workflow("pool", executors, fabric=url) as kernel:
            side.warm_up(kernel, {"alpha", "beta"}, each=2)
            stream = _Stream(side.app(tasks.counted, kernel), spec["per_second"])
            stream.run(3)
            left, is_killed = time.time(), spec["how"].startswith("killed")
            server.send_signal(signal.SIGKILL if is_killed else signal.SIGSTOP)
            stream.run(spec["away"])
            back = time.time()
            if is_killed:
                server.wait()
                server = subprocess.Popen(command)
            else:
                server.send_signal(signal.SIGCONT)
            stream.run(3)
            outcome = side.outcome(stream.futures, time.monotonic(), spec["wait"])
            time.sleep(8)  # what waited in the outbox is sent now
            blamed = side.reported(kernel, ev.EndpointDown, url) + side.reported(kernel, ev.TaskRerouted, url)
            finished = {payload.task for _, payload in side.reported(kernel, ev.TaskFinished, url)}
            during = [1e6 * cost for at, cost in costs if left <= at <= back]
            record({
                "tasks": len(stream.futures),
                "lost": len(stream.futures) - outcome.done,
                "blamed": len(blamed),
                "told": len(finished),
                "emits": len(during),
                "emit_p50_us": statistics.median(during),
                "emit_p99_us": statistics.quantiles(during, n=100)[98],
            })  # fmt: skip
    finally:
        server.send_signal(signal.SIGCONT)
        server.terminate()
        server.wait(10)


class _Stream:
    """Tasks at a steady rate."""

    def __init__(self, counted: Any, per_second: int) -> None:
        self.futures: list[Future[int]] = []
        self._counted = counted
        self._period = 1 / per_second

    def run(self, seconds: float) -> None:
        """Submit for so long."""
        began = time.monotonic()
        count = 0
        while time.monotonic() - began < seconds:
            self.futures.append(self._counted(len(self.futures), 0.05, "book"))
            count += 1
            time.sleep(max(0.0, began + count * self._period - time.monotonic()))


EXPERIMENT = Experiment(
    name="fabric-away",
    title="Fabric away for a minute",
    asks=(
        "A pool of two endpoints on a fabric of its own, 20 tasks a second; the fabric's server is killed, "
        "or stopped, and is back 60 s later. Blamed are endpoints called down and tasks rerouted. The cost "
        "of telling an event is what the caller of the publisher waits, during the outage."
    ),
    cases=cases,
    columns=(
        Column("tasks", "tasks", "{:.0f}"),
        Column("lost", "lost", "{:.0f}"),
        Column("blamed", "blamed", "{:.0f}"),
        Column("emits", "events told during it", "{:.0f}"),
        Column("emit_p50_us", "cost of one, µs (p50)"),
        Column("emit_p99_us", "cost of one, µs (p99)"),
    ),
    targets=(
        Target("no task lost", lambda r: every(r, "pool", at_most("lost", 0))),
        Target("no endpoint blamed", lambda r: every(r, "pool", at_most("blamed", 0))),
        Target("telling costs at most 50 µs (p99)", lambda r: every(r, "pool", at_most("emit_p99_us", 50))),
    ),
)
