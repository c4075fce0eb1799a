from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from parsl.app.errors import RemoteExceptionWrapper, wrap_error
from parsl.serialize import deserialize, serialize

from diaspora_parsl.executors.worker import node_gate


def double(number: int, *, plus: int = 0) -> int:
    if number < 0:
        raise ValueError(number)
    return 2 * number + plus


@pytest.fixture(autouse=True)
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process as a worker that has run nothing yet."""
    monkeypatch.setenv("DIASPORA_PARSL_NODE", "node-1")
    monkeypatch.setenv("PARSL_WORKER_BLOCK_ID", "7")
    monkeypatch.setenv("PARSL_WORKER_POOL_ID", "abc")
    monkeypatch.setattr(node_gate, "PAUSE", 0.0)
    node_gate._around.cache_clear()
    sys.modules.pop("_diaspora_parsl_gate", None)
    yield
    sys.modules.pop("_diaspora_parsl_gate", None)
    node_gate._around.cache_clear()


def through(guard: Any, attempt: int, known: int = 0, avoid: str = "", *args: Any, **kwargs: Any) -> node_gate.Report:
    report = node_gate.opened(guard(attempt, known, avoid, *args, **kwargs))
    assert report is not None
    return report


def test_a_result_comes_with_its_place() -> None:
    assert through(node_gate.around(double), 1, 0, "", 4, plus=1) == node_gate.Report("node-1 7 abc", 9)


def test_what_the_function_raises_comes_as_it_is() -> None:
    report = through(node_gate.around(double), 1, 0, "", -1)
    assert report.raised
    assert report.node == "node-1 7 abc"
    sent = deserialize(serialize(report.value))
    with pytest.raises(ValueError, match="-1") as caught:
        sent.reraise()
    assert [entry.name for entry in caught.traceback][-1] == "double"
    assert "gate" not in [entry.name for entry in caught.traceback]


def test_what_an_app_raises_stays_wrapped() -> None:
    report = through(node_gate.around(wrap_error(double)), 1, 0, "", -1)
    assert isinstance(report.value, RemoteExceptionWrapper)
    assert not report.raised


def test_an_end_of_the_process_is_no_business_of_the_gate() -> None:
    with pytest.raises(SystemExit):
        through(node_gate.around(sys.exit), 1)


@pytest.mark.parametrize(("avoid", "refused"), [("node-1", True), ("x abc", True), ("node-10 abcd 7", False)])
def test_it_refuses_a_place_that_is_to_be_avoided(avoid: str, refused: bool) -> None:  # noqa: FBT001 - of the table
    ran: list[int] = []
    report = through(node_gate.around(ran.append), 1, 0, avoid, 4)
    assert report.refused is refused
    assert bool(ran) is not refused


def test_a_refusal_takes_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(node_gate, "PAUSE", 0.25)
    monkeypatch.setattr(time, "sleep", slept.append)
    through(node_gate.around(double), 1, 0, "abc", 4)
    assert slept == [0.25]


def test_a_worker_that_fails_swallows_one_of_what_is_queued() -> None:
    guard = node_gate.around(double)
    assert through(guard, 10, 0, "", -1).raised
    assert through(guard, 11, 0, "", -1).refused
    assert through(guard, 12, 9, "", 4).refused
    assert through(guard, 13, 10, "", 4).value == 8, "the pool knows"
    assert not through(node_gate.around(max), 14, 0, "", 1, 2).refused, "another function"


def test_where_it_worked_before_three_failures_make_it_refuse() -> None:
    guard = node_gate.around(double)
    through(guard, 1, 0, "", 4)
    assert [through(guard, attempt, 0, "", -1).refused for attempt in (2, 3, 4, 5)] == [False, False, False, True]
    assert through(guard, 6, 4, "", 4).value == 8
    assert through(guard, 7, 0, "", -1).raised


def test_parsl_serialises_one_gate_per_function_and_a_worker_needs_nothing_for_it() -> None:
    assert node_gate.around(double) is node_gate.around(double)
    script = (
        "import sys; from parsl.serialize import deserialize; sys.modules['diaspora_parsl'] = None\n"
        "guard = deserialize(bytes.fromhex(sys.stdin.read())); print(repr(guard(1, 0, '', 2, 3)))"
    )
    sent = serialize(node_gate.around(max)).hex()
    environment = {**os.environ, "DIASPORA_PARSL_NODE": "far"}
    ran = subprocess.run(
        [sys.executable, "-c", script], input=sent, env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == r"('\x00diaspora-parsl=far 7 abc', 3)"


def test_a_callable_that_cannot_be_hashed() -> None:
    class Odd:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self) -> int:
            return 5

    assert through(node_gate.around(Odd()), 1).value == 5


@pytest.mark.parametrize("value", [None, 3, ("a", "b"), ("a",), [1, 2], ("\x00diaspora", 1), (1, 2)])
def test_other_results_are_no_reports(value: object) -> None:
    assert node_gate.opened(value) is None


def test_an_agent_can_read_what_a_worker_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("DIASPORA_PARSL_WORKERS", "board")
    board = tmp_path / "board" / str(os.getpid())
    report = through(node_gate.around(lambda: int.from_bytes(board.read_bytes(), "little")), 42)
    assert report.value == 42
    assert int.from_bytes(board.read_bytes(), "little") == 0


def test_without_room_to_write_it_runs_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "board").write_text("no folder")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("DIASPORA_PARSL_WORKERS", "board")
    assert through(node_gate.around(double), 1, 0, "", 4).value == 8
