"""Everything that can happen to one of two Globus Compute endpoints, or to the service, one fault after the other."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from typing import Any

from benchmarks import tasks
from benchmarks.kit.experiment import Case, Column, Experiment, Target, at_most, every
from benchmarks.kit.schema import Measurement
from benchmarks.peers.common import SECONDS, SLOTS, here
from diaspora_parsl.testing import faults as f

#: Half of them are submitted before the fault, half of them just after it.
TASKS = 40
A, B = "alpha", "beta"
_START = 90.0
#: Seconds after which nothing is waited for any more.
_WAIT = 60.0
#: Seconds: longer than any case.
_LASTING = 600.0
#: Bytes: more than the service takes as arguments, or as a result.
_TOO_LARGE = 11 * 2**20


@dataclass(frozen=True)
class Trouble:
    """What goes wrong.

    Args:
        words: Text in the table.
        script: Fault script; its times count from when alpha is busy.
        quick: Whether the quick form includes it.
        wait: Seconds from the fault after which unfinished tasks count as lost.
        requests: what the service allows, as of `LocalGlobusCompute`.
        too_large: "arguments" or "result": one more task has too large ones.
    """

    words: str
    script: tuple[f.Fault, ...] = ()
    quick: bool = False
    wait: float = _WAIT
    requests: tuple[int, float] | None = None
    too_large: str | None = None


TROUBLES = (
    Trouble("no fault", quick=True),
    # The endpoint.
    Trouble("offline for good", (f.Kill(at=0, endpoint=A, until=_LASTING),), quick=True),
    Trouble("offline, back after 5 s", (f.Kill(at=0, endpoint=A, until=5),)),
    Trouble("restarted at once", (f.Kill(at=0, endpoint=A),)),
    Trouble("both offline, back after 8 s", (f.Kill(at=0, endpoint=A, until=8), f.Kill(at=0, endpoint=B, until=8))),
    Trouble("worker killed", (f.LoseWorker(at=0, endpoint=A),), quick=True),
    Trouble("node lost", (f.LoseNode(at=0, endpoint=A),)),
    Trouble("frozen, says online", (f.Freeze(at=0, endpoint=A, until=_LASTING),), quick=True),
    Trouble("ten times as slow", (f.Slow(at=0, endpoint=A, until=_LASTING, factor=10),)),
    # Its status.
    Trouble(
        "offline for good, says online",
        (f.WrongStatus(at=0, endpoint=A, until=_LASTING), f.Kill(at=0, endpoint=A, until=_LASTING)),
    ),
    Trouble("well, says offline", (f.WrongStatus(at=0, endpoint=A, until=_LASTING, status="offline"),)),
    Trouble("well, status hangs for 10 s", (f.Mute(at=0, endpoint=A, until=10),)),
    # Submissions to it.
    Trouble("submissions hang", (f.Refuse(at=0, endpoint=A, until=_LASTING, delay=_LASTING),)),
    Trouble(
        "submissions hang for 10 s, then fail: 400",
        (f.Refuse(at=0, endpoint=A, until=_LASTING, delay=10, status=400),),
    ),
    Trouble("submissions fail: 403", (f.Refuse(at=0, endpoint=A, until=_LASTING, status=403),), quick=True),
    Trouble("submissions fail: 503", (f.Refuse(at=0, endpoint=A, until=_LASTING, status=503),)),
    Trouble("submissions fail for 5 s: 429", (f.Refuse(at=0, endpoint=A, until=5, status=429),)),
    # The service.
    Trouble("service fails for 5 s: 401", (f.Refuse(at=0, until=5, status=401),)),
    Trouble("service fails for 20 s: 503", (f.Refuse(at=0, until=20, status=503),)),
    Trouble("service allows 20 requests in 10 s", requests=(20, 10.0)),
    # Results.
    Trouble("results lost, kept", (f.LoseResults(at=0, endpoint=A, until=_LASTING, kept=True),), quick=True),
    Trouble("results lost, not kept", (f.LoseResults(at=0, endpoint=A, until=_LASTING),)),
    Trouble("results delivered twice", (f.RepeatResults(at=0, endpoint=A, until=_LASTING),)),
    Trouble("results expired", (f.LoseBroker(at=0, until=6), f.ForgetResults(at=5))),
    Trouble("AMQP connections dropped", (f.LoseConnection(at=0),), quick=True),
    Trouble("AMQP broker away for 45 s", (f.LoseBroker(at=0, until=45),), wait=90),
    Trouble("one task's arguments are too large", too_large="arguments"),
    Trouble("one task's result is too large", too_large="result"),
)
_BY_WORDS = {trouble.words: trouble for trouble in TROUBLES}


def cases(quick: bool) -> list[Case]:  # noqa: FBT001 - see Experiment
    """Each fault, under the pool and without."""
    return [
        Case(peer, trouble.words, {"fault": trouble.words, "wait": trouble.wait}, trouble.wait + _START)
        for trouble in TROUBLES
        if trouble.quick or not quick
        for peer in ("pool", "plain")
    ]


def measure(spec: dict[str, Any], record: Callable[[dict[str, Any]], None]) -> None:
    """Two endpoints; the fault strikes as soon as the first is busy, and the workflow ends while it lasts."""
    from benchmarks.peers import globus_side, parsl_side  # noqa: PLC0415 - not needed to draw the page
    from diaspora_parsl.testing.faults.injector import Injector  # noqa: PLC0415
    from diaspora_parsl.testing.globus import LocalGlobusCompute  # noqa: PLC0415

    trouble, peer, book = _BY_WORDS[spec["fault"]], spec["peer"], here("book")
    with LocalGlobusCompute(requests=trouble.requests) as service, contextlib.ExitStack() as ending:
        places = [service.endpoint(label, workers=SLOTS) for label in (A, B)]
        executors = globus_side.members(peer, service, places, brake=trouble.requests is not None)
        retries = 0 if peer == "pool" else 1
        kernel = ending.enter_context(parsl_side.workflow(peer, executors, retries=retries))
        parsl_side.warm_up(kernel, {A, B}, each=SLOTS)
        given = globus_side.note_given(TASKS)
        counted, futures = parsl_side.app(tasks.counted, kernel), _Futures()
        futures.add(counted(number, SECONDS, book) for number in range(TASKS // 2))
        parsl_side.until(lambda: sum(line.site == A for line in tasks.lines(book)) > SLOTS, 30, "alpha took no tasks")
        script = f.FaultScript(trouble.script)
        with Injector(script, places) as injector:
            at_once = sum(fault.at == 0 for fault in script)
            parsl_side.until(lambda: len(injector.done) >= at_once, 20, "the fault does not begin")
            struck = injector.done[0].unix if script else time.time()
            if trouble.too_large:
                futures.add([_too_large(trouble.too_large, kernel)])
            futures.add(counted(number, SECONDS, book) for number in range(TASKS // 2, TASKS))
            figures = futures.figures(struck, spec["wait"])
            starts = tasks.lines(book, "start")
            runs = Counter(line.task for line in starts)
            record({
                **figures,
                "expected": TASKS,
                "run_again": sum(count > 1 for count in runs.values()),
                "rerouted": globus_side.first_rerouted_start(given, starts, A, struck),
            })  # fmt: skip
            ending.close()


def _too_large(what: str, kernel: Any) -> Future[Any]:
    from benchmarks.peers import parsl_side  # noqa: PLC0415 - as above

    if what == "arguments":
        return parsl_side.app(tasks.size, kernel)(bytes(_TOO_LARGE))  # type: ignore[no-any-return]
    return parsl_side.app(tasks.bulk, kernel)(_TOO_LARGE)  # type: ignore[no-any-return]


class _Futures:
    """Futures, and how often and when each of them called back."""

    def __init__(self) -> None:
        self._futures: list[Future[Any]] = []
        self._calls: list[tuple[int, float]] = []

    def add(self, futures: Any) -> None:
        """More of them."""
        for future in futures:
            number = len(self._futures)
            self._futures.append(future)
            future.add_done_callback(lambda _, number=number: self._calls.append((number, time.time())))

    def figures(self, struck: float, limit: float) -> dict[str, float | None]:
        """Wait for all, so many seconds from the fault at most, and say what came of them."""
        settled, lost = wait_for(self._futures, timeout=max(0.0, struck + limit - time.time()))
        kinds = Counter(future.exception() is None for future in settled)
        calls = Counter(number for number, _ in self._calls)
        return {
            "done": kinds[True],
            "failed": kinds[False],
            "lost": len(lost),
            "told_twice": sum(count > 1 for count in calls.values()),
            "last": max((at for _, at in self._calls), default=struck) - struck,
        }


def _all_done(measurement: Measurement) -> bool:
    return measurement.figure("done") == measurement.figure("expected")


def _is_clean(measurement: Measurement) -> bool:
    return measurement.exit_seconds is not None and measurement.processes_left == 0


EXPERIMENT = Experiment(
    name="globus-faults",
    title="Faults of Globus Compute",
    asks=(
        "Two emulated endpoints of two workers, and 40 tasks of 0.25 s: 20 before the fault, which strikes as soon as"
        " the first endpoint is busy, and 20 just after it. Parsl has two `GlobusComputeExecutor`s with `retries=1`,"
        " each with a client and a task group of its own; the pool has two `GlobusEndpoint`s with `status_period=1.0,"
        " patience=5.0`, and no retries. What has no result 60 s after the fault is lost (90 s if the broker is away)."
        " A task is delivered twice if its future calls back twice, and run more than once if it notes more than one"
        " start. The rerouted start is the first of a task that the first endpoint had been given, and that was given"
        " again, there or elsewhere. What is too large is one task more, which fails in any case. The workflow ends"
        " while the fault lasts; the last column says in what time."
    ),
    cases=cases,
    columns=(
        Column("done", "done, of 40", "{:.0f}"),
        Column("lost", "lost", "{:.0f}"),
        Column("failed", "failed", "{:.0f}"),
        Column("told_twice", "delivered twice", "{:.0f}"),
        Column("run_again", "run more than once", "{:.0f}"),
        Column("rerouted", "first rerouted start, s"),
        Column("last", "fault to the last result, s"),
    ),
    targets=(
        Target("every task done", lambda r: every(r, "pool", _all_done)),
        Target("no task lost", lambda r: every(r, "pool", at_most("lost", 0))),
        Target("no result delivered twice", lambda r: every(r, "pool", at_most("told_twice", 0))),
        Target("clean exit, no process left", lambda r: every(r, "pool", _is_clean)),
    ),
    shows_exit=True,
    page="globus.md",
)
