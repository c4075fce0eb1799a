from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import parsl
import psutil
import pytest
from parsl.executors import ThreadPoolExecutor

from diaspora_parsl import Endpoint
from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.testing import pools
from diaspora_parsl.testing.environment import reachable
from diaspora_parsl.testing.faults import Fault, Freeze, Kill, LoseNode, Slow
from diaspora_parsl.testing.globus import LocalGlobusCompute
from diaspora_parsl.testing.leak_check import end_what_is_left
from diaspora_parsl.testing.pools import PoolRun, resilient_pool


class Threads:
    """A place that is nothing but threads, and writes down what happens to it."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.endpoint = Endpoint(ThreadPoolExecutor(label=label, max_threads=2))
        self.met: list[str] = []

    @property
    def domain(self) -> object:
        return self

    def refuses(self, fault: Fault) -> str | None:
        return "threads have no nodes" if isinstance(fault, LoseNode) else None

    def begin(self, fault: Fault) -> None:
        self.met.append(f"begin {type(fault).__name__}")

    def end(self, fault: Fault) -> None:
        self.met.append(f"end {type(fault).__name__}")


def test_a_local_site_and_an_emulated_endpoint_in_one_pool(tmp_path: Path) -> None:
    stories: list[str] = []
    faults = [Kill(at=0.5, endpoint="gamma", until=2.0)]
    with LocalGlobusCompute() as service:
        gamma = service.endpoint("gamma", workers=2)
        with resilient_pool(
            "alpha", gamma, folder=tmp_path, faults=faults, pool={"label": "mine"}, retries=3, tell=stories.append
        ) as run:
            assert (run.pool.label, run.dfk.config.retries, list(run.sites)) == ("mine", 3, ["alpha"])
            work = parsl.python_app(subprocess.check_call)  # on what is loaded
            for future in [work(["sleep", "0.2"]) for _ in range(24)]:
                future.result(60)
            run.wait_for_faults()
            run.sites["alpha"].freeze(interchange=True)  # and nobody thaws it
    story = run.story()
    assert sum(story.finished.values()) == story.submitted == 24
    assert set(story.finished) <= {"alpha", "gamma"}
    assert not story.lost
    assert [(one.fault, one.ended) for one in story.faults] == [(faults[0], False), (faults[0], True)]
    assert stories == [str(story)]
    assert "24 tasks: 24 finished" in stories[0]
    with pytest.raises(parsl.errors.NoDataFlowKernelError):
        parsl.dfk()


def test_faults_that_never_came_are_no_success(tmp_path: Path) -> None:
    with (
        pytest.warns(UserWarning, match="0 of 1 faults happened"),
        resilient_pool("alpha", folder=tmp_path, faults=[Freeze(at=100.0, endpoint="alpha", until=101.0)], workers=1),
    ):
        pass


@pytest.mark.parametrize(
    ("parts", "options", "sentence"),
    [
        (("alpha", "alpha"), {}, "two endpoints have the label 'alpha'"),
        ((object(),), {}, "cannot be part of a pool"),
        (("alpha",), {"pool": {"fabric": "memory://x"}}, 'leave it "embedded"'),
    ],
)
def test_what_makes_no_pool_is_refused_with_a_sentence(
    tmp_path: Path, parts: tuple[Any, ...], options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigurationError, match=sentence), resilient_pool(*parts, folder=tmp_path, **options):
        pass


def test_any_place_with_an_endpoint_can_be_part_of_a_pool(tmp_path: Path) -> None:
    place = Threads("threads")
    faults = [Slow(at=0.0, endpoint="threads", until=1000.0)]
    with resilient_pool(place, folder=tmp_path, faults=faults) as run:
        assert parsl.python_app(abs)(-1).result(60) == 1
        while not place.met:
            time.sleep(0.01)
    assert place.met == ["begin Slow", "end Slow"]
    assert run.story().finished == {"threads": 1}
    with (
        pytest.raises(ConfigurationError, match="threads have no nodes"),
        resilient_pool(Threads("threads"), folder=tmp_path, faults=[LoseNode(at=1.0, endpoint="threads")]),
    ):
        pytest.fail("the block was entered")


def test_what_is_left_behind_is_named_and_processes_are_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "_GRACE", 0.2)
    goes_on = threading.Event()
    module: dict[str, Any] = {"__name__": "diaspora_parsl.imagined"}
    exec("def wait(event): event.wait(60)", module)  # noqa: S102 - a thread is known by the module whose code it runs
    thread = threading.Thread(target=module["wait"], args=(goes_on,), name="leftover")
    children: list[subprocess.Popen[bytes]] = []

    def leave(run: PoolRun) -> None:
        thread.start()
        marked = {**os.environ, "DIASPORA_PARSL_BLOCK": f"{run.dfk.run_id}/pool/alpha/0/1"}
        children.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=marked))
        while "sleep" not in "".join(psutil.Process(children[0].pid).cmdline()):
            time.sleep(0.01)

    stories: list[str] = []
    words = r"left behind 0 s after the end of the pool: thread leftover; .*process \d+ .*sleep\(60\)"
    with (
        pytest.raises(RuntimeError, match=words),
        resilient_pool(Threads("alpha"), folder=tmp_path, tell=stories.append) as run,
    ):
        leave(run)
    goes_on.set()
    thread.join(10)
    assert children[0].wait(10) < 0
    assert "\nLEFT BEHIND: thread leftover\n" in stories[0]


def test_threads_of_others_are_none_of_its_business() -> None:
    goes_on = threading.Event()
    thread = threading.Thread(target=goes_on.wait, args=(60,))
    before = threading.enumerate()
    thread.start()
    assert end_what_is_left("a-run", before, list, 0.0) == []
    goes_on.set()
    thread.join(10)


def test_what_is_started_meanwhile_finds_programs_and_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "a_module_of_the_test.py").write_text("print('found')")
    with reachable():
        first, _, rest = os.environ["PATH"].partition(":")
        assert Path(first, "process_worker_pool.py").exists()
        assert rest == "/nowhere"
        found = subprocess.run(
            [sys.executable, "-c", "import a_module_of_the_test"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert found.stdout == "found\n"
    assert os.environ["PATH"] == "/nowhere"
    assert "PYTHONPATH" not in os.environ
