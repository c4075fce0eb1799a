"""Parsl's worker-side monitoring: what does it cost on the fabric, beside Parsl's own radios? And an agent?"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.kit.experiment import Case, Column, Experiment, Target, at_least, at_most, every

#: Seconds that a task takes, by what it is called.
LENGTHS = {"no-op": 0.0, "10 ms": 0.01, "50 ms": 0.05}
AGENT = "an agent beside two busy workers"
SAMPLED = "each task sampled"


def cases(quick: bool) -> list[Case]:  # noqa: FBT001 - see Experiment
    """Tasks of several lengths, begin and end told; one kind with samples of each task; and an agent alone."""
    rounds = 2 if quick else 5
    sides = [
        Case(
            "pool",
            f"{name} tasks",
            {"seconds": seconds, "rounds": rounds, "interval": 0, "for": 1 if quick else 3},
            600,
        )
        for name, seconds in LENGTHS.items()
    ]
    sampled = {"seconds": LENGTHS["50 ms"], "rounds": rounds, "interval": 30, "for": 1 if quick else 3}
    return [
        *sides,
        Case("pool", f"50 ms tasks, {SAMPLED}", sampled, 600),
        Case("pool", AGENT, {"agent": 10 if quick else 60}, 200),
    ]


def measure(spec: dict[str, Any], record: Callable[[dict[str, Any]], None]) -> None:
    """All sides in turns, so that the ratios hold on a machine whose speed drifts."""
    if "agent" in spec:
        _agent(spec["agent"], record)
        return
    sides: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        for name in ("bare", "fabric", "silent", "htex", "udp"):
            sides[name] = stack.enter_context(_side(name, spec["interval"]))
        rates: dict[str, list[float]] = {name: [] for name in sides}
        count = 50
        began = time.perf_counter()
        _run(sides["bare"], spec["seconds"], count)
        count = max(20, int(count / (time.perf_counter() - began) * spec["for"]))
        for side in sides.values():
            _run(side, spec["seconds"], 50)
        order = list(sides)
        for _ in range(spec["rounds"]):
            for name in order:
                began = time.perf_counter()
                _run(sides[name], spec["seconds"], count)
                rates[name].append(count / (time.perf_counter() - began))
            order = order[1:] + order[:1]  # what one leaves behind is not always paid by the same
        run_dir = sides["fabric"][0].run_dir
    figures: dict[str, float] = {name: statistics.median(found) for name, found in rates.items()}
    for name in ("fabric", "silent", "htex", "udp"):
        pairs = zip(rates[name], rates["bare"], strict=True)
        figures[f"{name}_ratio"] = statistics.median(rate / bare for rate, bare in pairs)
    tasks = 50 + count * spec["rounds"]
    figures |= {"tasks": tasks, "untold": tasks - _reported(run_dir)}
    record(figures)


@contextlib.contextmanager
def _side(name: str, interval: float) -> Iterator[tuple[Any, Any]]:
    """A workflow of its own with two workers, monitored in one way or not at all."""
    from parsl.config import Config  # noqa: PLC0415 - its package is not where other peers live
    from parsl.dataflow.dflow import DataFlowKernel  # noqa: PLC0415
    from parsl.monitoring import MonitoringHub  # noqa: PLC0415
    from parsl.monitoring.radios.htex import HTEXRadio  # noqa: PLC0415
    from parsl.monitoring.radios.udp import UDPRadio  # noqa: PLC0415

    from benchmarks import overhead  # noqa: PLC0415
    from benchmarks.kit.silent import SilentRadio  # noqa: PLC0415
    from diaspora_parsl import FabricMonitoringHub, FabricRadio  # noqa: PLC0415

    executor: Any = overhead.htex(name)
    hub: Any = None
    if name == "fabric":
        hub = FabricMonitoringHub(resource_monitoring_interval=interval)
        executor.remote_monitoring_radio = FabricRadio()
    elif name == "silent":
        # What Parsl itself does for monitoring, before anything is sent anywhere.
        hub = FabricMonitoringHub(resource_monitoring_interval=interval)
        hub._emit = lambda _: None  # noqa: SLF001 - the peer without events has no publisher
        executor.remote_monitoring_radio = SilentRadio()
    elif name != "bare":
        database = f"sqlite:///{Path.cwd() / name}.db"
        hub = MonitoringHub(logging_endpoint=database, resource_monitoring_interval=interval)
        executor.remote_monitoring_radio = HTEXRadio() if name == "htex" else UDPRadio(address="127.0.0.1")
    kernel = DataFlowKernel(
        Config(executors=[executor], monitoring=hub, run_dir=f"runinfo-{name}", strategy="none",
               initialize_logging=False)
    )  # fmt: skip
    try:
        yield kernel, _app(kernel)
    finally:
        kernel.cleanup()


def _app(kernel: Any) -> Any:
    import parsl  # noqa: PLC0415 - its package is not where other peers live

    from benchmarks import tasks  # noqa: PLC0415

    return parsl.python_app(tasks.nap, data_flow_kernel=kernel)


def _run(side: tuple[Any, Any], seconds: float, count: int) -> None:
    for future in [side[1](seconds) for _ in range(count)]:
        future.result(300)


def _reported(run_dir: str) -> int:
    """Tasks whose end a worker told on the fabric."""
    from diaspora_parsl import events as ev  # noqa: PLC0415 - its package is not where other peers live
    from diaspora_parsl import open_fabric  # noqa: PLC0415

    ended = set()
    with (
        contextlib.closing(open_fabric(f"embedded://{Path(run_dir).resolve()}")) as fabric,
        contextlib.closing(fabric.subscribe([ev.TOPIC_TASK], "earliest")) as subscription,
    ):
        while batch := subscription.read(0.5):
            for event in batch:
                payload = event.payload()
                if isinstance(payload, ev.TryChanged) and payload.status == "running_ended":
                    ended.add(payload.parsl_task)
    return len(ended)


def _agent(seconds: float, record: Callable[[dict[str, Any]], None]) -> None:
    """What an agent costs, and how soon it tells that a worker died."""
    import psutil  # noqa: PLC0415 - no other peer needs it

    from benchmarks import tasks  # noqa: PLC0415
    from benchmarks.peers import parsl_side as side  # noqa: PLC0415
    from diaspora_parsl import events as ev  # noqa: PLC0415
    from diaspora_parsl import open_fabric  # noqa: PLC0415
    from diaspora_parsl.fabric.address import find_fabric  # noqa: PLC0415

    place = side.site("alpha", workers=2, node_agent=True)
    endpoints: list[Any] = [place.endpoint]  # not only its executor: the agent is the endpoint's
    with side.workflow("pool", endpoints) as kernel:
        side.warm_up(kernel, {"alpha"}, each=2)
        (agent,) = [p for p in place.processes() if "agent" in p.cmdline() and "sh" not in p.name()]
        nap = side.app(tasks.nap, kernel)
        before, began = agent.cpu_times(), time.monotonic()
        while time.monotonic() - began < seconds:
            for future in [nap(0.05) for _ in range(40)]:
                future.result(60)
        after, took = agent.cpu_times(), time.monotonic() - began
        resident = agent.memory_info().rss
        delays = []
        with contextlib.closing(open_fabric(find_fabric(kernel.run_dir))) as fabric:
            for _ in range(5):
                with contextlib.closing(fabric.subscribe([ev.TOPIC_RESOURCE], "latest")) as subscription:
                    victim: psutil.Process = place.workers()[0]
                    killed = time.monotonic()
                    victim.kill()
                    while not any(
                        isinstance(reported := event.payload(), ev.WorkerDied) and reported.pid == victim.pid
                        for event in subscription.read(0.05)
                    ):
                        if time.monotonic() - killed > 10:
                            raise TimeoutError("no word of a dead worker")
                    delays.append(time.monotonic() - killed)
                while len(place.workers()) < 2:
                    time.sleep(0.1)
                time.sleep(2.3)  # it must have been seen to be missed
    record({
        "agent_cpu": 100 * (after.user + after.system - before.user - before.system) / took,
        "agent_mb": resident / 1e6,
        "death_told": max(delays),
    })  # fmt: skip


def _is_plain(variant: str) -> bool:
    return variant in {f"{name} tasks" for name in LENGTHS if name != "no-op"}


def _is_agent(variant: str) -> bool:
    return variant == AGENT


EXPERIMENT = Experiment(
    name="fabric-radio",
    title="Monitoring over the fabric",
    asks=(
        "HTEX with two workers under Parsl without monitoring, with `FabricRadio` and `FabricMonitoringHub`, and with "
        "Parsl's own hub, database and radios (HTEX, UDP), in turns. Each tells when a task begins and ends; with "
        "samples, what it uses too. A radio that sends nothing shows what Parsl itself does for any. Untold are "
        "ends that never reached the fabric. An agent is measured beside two busy workers, and by five kills of one."
    ),
    cases=cases,
    columns=(
        Column("bare", "no monitoring, tasks/s", "{:,.0f}"),
        Column("fabric", "FabricRadio, tasks/s", "{:,.0f}"),
        Column("fabric_ratio", "ratio", "{:.3f}"),
        Column("silent_ratio", "a radio that sends nothing, ratio", "{:.3f}"),
        Column("htex_ratio", "Parsl's HTEX radio, ratio", "{:.3f}"),
        Column("udp_ratio", "Parsl's UDP radio, ratio", "{:.3f}"),
        Column("untold", "untold", "{:.0f}"),
        Column("agent_cpu", "agent, % of a core", "{:.2f}"),
        Column("agent_mb", "agent, MB", "{:.1f}"),
        Column("death_told", "kill to told, s (most)", "{:.2f}"),
    ),
    targets=(
        Target(
            "at least 0.97 of the throughput without monitoring (10 and 50 ms)",
            lambda r: every(r, "pool", at_least("fabric_ratio", 0.97), _is_plain),
        ),
        Target(
            "no end of a task untold",
            lambda r: every(r, "pool", at_most("untold", 0), lambda variant: not _is_agent(variant)),
        ),
        Target("an agent costs at most 1 % of a core", lambda r: every(r, "pool", at_most("agent_cpu", 1), _is_agent)),
        Target("an agent has at most 40 MB", lambda r: every(r, "pool", at_most("agent_mb", 40), _is_agent)),
        Target(
            "a killed worker is told within a second", lambda r: every(r, "pool", at_most("death_told", 1), _is_agent)
        ),
    ),
)
