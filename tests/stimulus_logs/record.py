"""Records stimulus logs: of the state machine, of the simulator, of bad nodes, of real runs.

Run ``python -m tests.stimulus_logs.record --help`` from the root of the repository.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis.stateful import run_state_machine_as_test

from diaspora_parsl.core.settings import PoolSettings
from diaspora_parsl.testing import faults as f
from diaspora_parsl.testing.simulation.scenario import LOADED, SimEndpoint, SimTask
from diaspora_parsl.testing.simulation.simulator import Simulator
from tests.stimulus_logs.codec import FOLDER, SUFFIX, Log, dumps, read, write
from tests.stimulus_logs.nodes import BadNodes
from tests.stimulus_logs.recorder import Recording, recording
from tests.stimulus_logs.replay import answers, first_difference

#: Stimuli of one log; what comes later is left out.
LONGEST: Final = {"machine": 900, "nodes": 1000, "simulator": 1500, "real": 1200}
#: Fewer stimuli say too little.
SHORTEST: Final = 15

# --- the state machine --------------------------------------------------------------------------------------------


def machine(count: int, seed: int) -> Iterator[Log]:
    """The logs of ``count`` runs of the state machine, of each seed the one that shows most that others do not.

    Args:
        count: of logs.
        seed: of the first one; each further one has the next seed.
    """
    from tests.property.test_pool_machine import PoolMachine  # noqa: PLC0415 - it takes a second

    seen: Counter[str] = Counter()
    for one in range(seed, seed + count):
        machine_of_seed = hypothesis.seed(one)(type("Seeded", (PoolMachine,), {}))
        options = hypothesis.settings(
            max_examples=15,
            stateful_step_count=50,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        with recording() as recordings:
            run_state_machine_as_test(machine_of_seed, settings=options)
        played = [r for r in recordings if SHORTEST <= len(r.steps) <= LONGEST["machine"]]
        best = max(played, key=lambda r: sum(1.0 / (1 + seen[what]) ** 2 for what in shown(r)))
        seen.update(shown(best))
        yield best.log(f"machine-{one:04}")


def shown(run: Recording) -> set[str]:
    """What a run shows: which stimulus is answered by which actions, events and kinds of reasons."""
    found = set()
    for stimulus, actions in run.steps:
        name = type(stimulus).__name__
        found.add(name)
        for action in actions:
            payload = getattr(action, "payload", action)
            reason = re.sub(r"[\d.]+|alpha|beta|gamma", "*", getattr(payload, "reason", ""))
            found.add(f"{name} {type(action).__name__} {type(payload).__name__} {reason[:60]}")
    return found


# --- the simulator ------------------------------------------------------------------------------------------------

INFRASTRUCTURE: Final = (
    f.Kill,
    f.LoseNode,
    f.LoseWorker,
    f.Freeze,
    f.Mute,
    f.Slow,
    f.LoseFabric,
    f.ClockJump,
)
USER_CODE: Final = (f.Flaky, f.BlackHole, f.WrongEnvironment, f.OutOfMemory)


def labels_of(count: int) -> list[str]:
    return [f"e{i:02}" for i in range(count)]


def with_infrastructure_faults(rng: random.Random, seed: int) -> Simulator:
    labels = labels_of(rng.randint(2, 5))
    pool = [
        SimEndpoint(
            label=label,
            slots=rng.choice((2, 4)),
            heartbeat=rng.choice((None, 1.0)),
            notice=rng.choice((0.1, 1.0, 5.0)),
        )
        for label in labels
    ]
    tasks = [SimTask(function=f"f{i % 2}", seconds=1.0, at=i * 0.1, raises=i % 17 == 3) for i in range(150)]
    script = f.FaultScript.drawn(seed, labels, count=10, seconds=25.0, kinds=INFRASTRUCTURE)
    return Simulator(endpoints=pool, tasks=tasks, faults=script, seed=seed)


def with_sites_that_fail(rng: random.Random, seed: int) -> Simulator:
    labels = labels_of(rng.choice((4, 6, 8)))
    sites = {name: labels[i::2] for i, name in enumerate(("north", "south"))}
    pool = [
        SimEndpoint(label=label, site=name, slots=2, heartbeat=1.0, notice=rng.choice((None, 1.0)), lateness=LOADED)
        for name, ones in sites.items()
        for label in ones
    ]
    script = f.FaultScript.clustered(seed, sites, seconds=40.0, between=30.0, down=6.0, soon=10.0, together=0.4)
    return Simulator(endpoints=pool, tasks=120, faults=script, seed=seed)


def with_a_wrong_environment(rng: random.Random, seed: int) -> Simulator:
    pool = [SimEndpoint(label=label, slots=rng.choice((1, 3))) for label in labels_of(3)]
    kinds = rng.choice(("all", "one"))
    tasks = [
        SimTask(function=f"f{i % 4}", seconds=0.5, idempotent=i % 5 != 0, priority=float(i % 2)) for i in range(200)
    ]
    bad = f.WrongEnvironment(at=0.0, endpoint="e00", until=1e6, function=None if kinds == "all" else "f1")
    short = f.OutOfMemory(at=3.0, endpoint="e01", until=12.0, function="f2")
    return Simulator(endpoints=pool, tasks=tasks, faults=[bad, short], seed=seed)


def with_stragglers(rng: random.Random, seed: int) -> Simulator:
    pool = [
        SimEndpoint(label=label, slots=8, stragglers=0.06, straggling=rng.choice((10.0, 20.0)), start_delay=0.0)
        for label in labels_of(3)
    ]
    tasks = [SimTask(at=1.0 + i / 8.0, idempotent=True) for i in range(220)]
    return Simulator(endpoints=pool, tasks=tasks, seed=seed, jitter=0.3)


def with_faults_of_user_code(rng: random.Random, seed: int) -> Simulator:
    labels = labels_of(rng.randint(2, 4))
    pool = [SimEndpoint(label=label, slots=4, nodes=rng.choice((1, 2, 4))) for label in labels]
    tasks = [SimTask(function=f"f{i % 3}", seconds=1.0, idempotent=i % 3 > 0, kills=i == 40) for i in range(160)]
    script = f.FaultScript.drawn(seed, labels, count=8, seconds=20.0, kinds=USER_CODE)
    return Simulator(endpoints=pool, tasks=tasks, faults=script, seed=seed)


def with_maintenance(rng: random.Random, seed: int) -> Simulator:
    windows = {"e00": ((5.0, 15.0),), "e01": ((12.0, 20.0), (22.0, 24.0))}
    pool = [
        SimEndpoint(label=label, slots=2, heartbeat=rng.choice((None, 2.0)), maintenance=windows.get(label, ()))
        for label in labels_of(3)
    ]
    script = f.FaultScript.drawn(seed, labels_of(3), count=4, seconds=25.0, kinds=(f.Kill, f.Mute, f.LoseWorker))
    tasks = [SimTask(function=f"f{i % 3}", seconds=rng.uniform(0.5, 4.0), idempotent=True) for i in range(60)]
    return Simulator(endpoints=pool, tasks=tasks, faults=script, seed=seed)


def with_many_endpoints(rng: random.Random, seed: int) -> Simulator:
    labels = labels_of(20)
    pool = [
        SimEndpoint(label=label, site=f"site-{i // 5}", slots=2, speed=rng.choice((0.5, 1.0, 2.0)), nodes=2)
        for i, label in enumerate(labels)
    ]
    script = f.FaultScript.drawn(seed, labels, count=20, seconds=20.0, kinds=(*INFRASTRUCTURE, *USER_CODE))
    settings = PoolSettings(retry_budget_per_second=rng.choice((0.2, 10.0)), retry_budget_max=rng.choice((5.0, 1000.0)))
    return Simulator(endpoints=pool, tasks=300, faults=script, seed=seed, settings=settings)


def without_hope(rng: random.Random, seed: int) -> Simulator:
    labels = labels_of(2)
    pool = [SimEndpoint(label=label, slots=2, notice=rng.choice((0.1, 1.0))) for label in labels]
    script = [f.Kill(at=rng.uniform(2.0, 6.0), endpoint=label, until=90.0) for label in labels]
    settings = PoolSettings(unavailable_timeout=20.0, revive_longest=8.0, max_kills=2)
    tasks = [SimTask(function=f"f{i % 2}", at=i * 0.2, kills=i % 11 == 5) for i in range(80)]
    return Simulator(endpoints=pool, tasks=tasks, faults=script, seed=seed, settings=settings)


SCENARIOS: Final[tuple[Callable[[random.Random, int], Simulator], ...]] = (
    with_infrastructure_faults,
    with_sites_that_fail,
    with_a_wrong_environment,
    with_stragglers,
    with_faults_of_user_code,
    with_maintenance,
    with_many_endpoints,
    without_hope,
)


def simulator(count: int, seed: int) -> Iterator[Log]:
    """The logs of ``count`` simulations: each kind in turn, each with a seed of its own.

    Args:
        count: of logs.
        seed: of the first one; each further one has the next seed.
    """
    for i in range(count):
        scenario = SCENARIOS[i % len(SCENARIOS)]
        rng = random.Random(seed + i)  # noqa: S311 - reproducible on purpose
        with recording() as recordings:
            scenario(rng, seed + i).run()
        (only,) = recordings
        yield only.log(f"simulator-{scenario.__name__}-{seed + i:04}")


def nodes(count: int, seed: int) -> Iterator[Log]:
    """The logs of ``count`` runs with bad nodes.

    Args:
        count: of logs.
        seed: of the first one; each further one has the next seed.
    """
    for one in range(seed, seed + count):
        with recording() as recordings:
            BadNodes(one, 250).run()
        (only,) = recordings
        yield only.log(f"nodes-{one:04}")


# --- real runs ----------------------------------------------------------------------------------------------------

#: Integration tests by what they do to a pool; each is a real run, or several.
REAL: Final = (
    "agent_worker_death",
    "all_down",
    "black_hole",
    "block_storm",
    "bridge",
    "cli_control",
    "custom_executor",
    "deserted_block",
    "drop_in",
    "environment",
    "fabric_dies",
    "fault_script",
    "frozen_node",
    "judgement",
    "kill_block",
    "kill_interchange",
    "kill_manager",
    "kill_worker",
    "maintenance",
    "no_fault",
    "rumour",
    "scaling",
    "shutdown",
    "site_comes_back",
    "stop_interchange",
    "stop_manager",
    "straggler",
    "version_mismatch",
)


class Keeper:
    """A plugin of pytest: keeps what the cores of each test were told, if the test passed.

    A test that fails may have ended before its fault struck: its log would not hold what its name says.
    """

    def __init__(self) -> None:
        self.logs: list[Log] = []
        self.failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self.failed.add(report.nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        with recording() as recordings:
            result = yield
        if item.nodeid in self.failed:
            sys.stderr.write(f"{item.nodeid}: left out, it did not pass\n")
            return result
        name = re.sub(r"[^\w-]+", "-", f"{item.path.stem}-{item.name}").strip("-").removeprefix("test_")
        for number, one in enumerate((r for r in recordings if len(r.steps) >= SHORTEST), 1):
            self.logs.append(one.log(f"real-{name}" + (f"-{number}" if number > 1 else "")))
        return result


def real(names: Iterable[str]) -> Iterator[Log]:
    """The logs of real runs, in every core of some integration tests, without paths and names of this machine.

    Args:
        names: of integration tests, as in `REAL`.
    """
    keeper = Keeper()
    folder = FOLDER.parent / "integration"
    files = [str(folder / f"test_{name}.py") for name in names]
    options = ["-q", "--assert=plain", "-p", "no:cacheprovider", "-k", "not simulated"]  # imports stay as they are
    pytest.main([*options, *files], [keeper])
    for log in keeper.logs:
        short = shortened(log, "real")
        hidden = without_machine(short)
        if hidden is None:
            sys.stderr.write(f"{log.name}: left out, its order depends on names of this machine\n")
        else:
            yield hidden


#: An absolute path of at least two parts; the last one is kept.
_PATH: Final = re.compile(r"(?<![\w:/.])/(?:[\w.+@%-]+/)+([\w.+@%-]*)")


def without_machine(log: Log) -> Log | None:
    """The log without paths and the host's name; None if the core acts otherwise then."""
    host = platform.node()

    def hide(data: Any) -> Any:
        if isinstance(data, str):
            return _PATH.sub(r"/path/\1", data).replace(host, "host")
        if isinstance(data, list):
            return [hide(item) for item in data]
        if isinstance(data, dict):
            return {name: hide(item) for name, item in data.items()}
        return data

    steps = [encode_line(hide(json.loads(line))) for line in log.steps]
    hidden = replace(log, steps=steps)
    return hidden if first_difference(hidden) is None else None


def encode_line(step: list[Any]) -> str:
    """One line of a log; sets are sorted again, since their members may be called otherwise now."""
    return dumps(resorted(step))


def resorted(data: Any) -> Any:
    if isinstance(data, list):
        return [resorted(item) for item in data]
    if isinstance(data, dict):
        return {name: sorted(item) if name == "frozenset" else resorted(item) for name, item in data.items()}
    return data


# --- the command --------------------------------------------------------------------------------------------------


def shortened(log: Log, kind: str) -> Log:
    """The beginning of a log, if all of it is too long: that is a log as well."""
    return replace(log, steps=log.steps[: LONGEST[kind]])


def main() -> int:
    parser = argparse.ArgumentParser(description="Record stimulus logs, and the actions that the core answers.")
    parser.add_argument("kind", choices=sorted(LONGEST), help="what is recorded")
    parser.add_argument("tests", nargs="*", help="real: names of integration tests, without test_ and .py")
    parser.add_argument("--count", type=int, default=60, help="not for real: of logs (default 60)")
    parser.add_argument("--seed", type=int, default=0, help="not for real: of the first log (default 0)")
    parser.add_argument("--archive", type=Path, help="what is replaced; default: <kind>.jsonl.xz here")
    parser.add_argument("--add", action="store_true", help="keep the logs of the archive that have other names")
    given = parser.parse_args()
    if given.kind == "machine":
        made = machine(given.count, given.seed)
    elif given.kind == "simulator":
        made = simulator(given.count, given.seed)
    elif given.kind == "nodes":
        made = nodes(given.count, given.seed)
    else:
        made = real(given.tests or REAL)
    logs = []
    for log in made:
        short = shortened(log, given.kind)
        if list(answers(short)) != short.steps:
            sys.stderr.write(f"{log.name}: a second core answers otherwise: {first_difference(short)}\n")
            return 1
        logs.append(short)
    archive = given.archive or FOLDER / f"{given.kind}{SUFFIX}"
    if given.add and archive.exists():
        names = {log.name for log in logs}
        logs = [log for log in read(archive) if log.name not in names] + logs
    write(archive, logs)
    steps = sum(len(log.steps) for log in logs)
    sys.stdout.write(f"{archive.name}: {len(logs)} logs, {steps} stimuli, {archive.stat().st_size} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
