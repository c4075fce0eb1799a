"""An instance observes its executor for as long as it lives, whatever an observation raises."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from diaspora_parsl import Endpoint
from diaspora_parsl.core import stimuli
from diaspora_parsl.executors.parsl.adapter import RunContext
from diaspora_parsl.executors.parsl.observable import ObservableExecutor, Observation
from diaspora_parsl.executors.parsl.scale_out_backoff import ScaleOutBackoff
from diaspora_parsl.executors.runtime import instance as module
from diaspora_parsl.executors.runtime.instance import EndpointInstance, Scaling

LIMIT = 10.0


class Executor(ObservableExecutor):
    """Answers, or raises what it is given."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self.label = label
        self.error: Exception | None = None
        self.observations = 0

    def start(self) -> None:
        """Nothing to start."""

    def submit(
        self, func: Callable[..., Any], resource_specification: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        raise NotImplementedError

    def shutdown(self) -> None:
        """Nothing to end."""

    def observe(self) -> Observation:
        self.observations += 1
        if self.error is not None:
            raise self.error
        return Observation(1)

    def why_dead(self) -> str | None:
        return None

    def most_slots(self) -> int:
        return 1


def _until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_channel_that_keeps_raising_is_silent_since_its_first_failure(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_WATCH_PERIOD", 0.01)
    executor, posted = Executor("alpha"), list[stimuli.Stimulus]()
    instance = EndpointInstance(
        Endpoint(executor, max_concurrency=1), executor, generation=0,
        context=RunContext(run_dir=".", run_id=None, log_config=None, monitoring_messages=None),
        scaling=Scaling(strategy="none", max_idletime=1.0, strategy_period=1.0), mark="mark",
        blocks=ScaleOutBackoff(lambda *_: None), worker_init="", post=posted.append, outcome=lambda *_: None,
    )  # fmt: skip
    instance.start()
    try:
        _until(lambda: any(isinstance(s, stimuli.Observed) for s in posted))
        assert instance.look(time.monotonic()) is None
        executor.error = OSError("the run directory is gone")
        failed_after = time.monotonic()
        _until(lambda: "could not be observed" in caplog.text)
        seen = time.monotonic()
        before = executor.observations
        _until(lambda: executor.observations > before + 10)
        silent = instance.look(time.monotonic() + 5.0)
        assert isinstance(silent, stimuli.Unanswered)
        assert failed_after - 0.1 <= silent.since <= seen
        executor.error = ValueError("another cause")
        _until(lambda: "another cause" in caplog.text)
        assert caplog.text.count("could not be observed") == 2
        posted.clear()
        executor.error = None
        _until(lambda: any(isinstance(s, stimuli.Observed) for s in posted))
        _until(lambda: instance.look(time.monotonic() + 5.0) is None)
    finally:
        instance.close(LIMIT, broken=True)
