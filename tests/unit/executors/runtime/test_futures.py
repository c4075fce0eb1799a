from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

import pytest

from diaspora_parsl.executors.runtime.futures import Delivery, TaskFuture

PATIENCE = 10.0


@pytest.fixture
def delivery() -> Iterator[Delivery]:
    made = Delivery("test-delivery")
    yield made
    made.close(PATIENCE)


def test_results_and_errors_arrive_as_they_are(delivery: Delivery) -> None:
    error = ValueError("its own")
    futures: list[Future[Any]] = [Future(), Future(), Future()]
    delivery.settle(futures[0], 5, None)
    delivery.settle(futures[1], None, error)
    delivery.settle(futures[2], None, None)
    assert futures[0].result(PATIENCE) == 5
    assert futures[1].exception(PATIENCE) is error
    assert futures[2].result(PATIENCE) is None


def test_the_order_is_kept(delivery: Delivery) -> None:
    seen: list[int] = []
    futures: list[Future[int]] = [Future() for _ in range(200)]
    for number, future in enumerate(futures):
        future.add_done_callback(lambda _, number=number: seen.append(number))  # type: ignore[misc]
        delivery.settle(future, number, None)
    assert futures[-1].result(PATIENCE) == 199
    assert delivery.close(PATIENCE)
    assert seen == list(range(200))


def test_a_callback_that_waits_for_the_next_future_gets_it(delivery: Delivery) -> None:
    depth = 4
    futures: list[Future[int]] = [Future() for _ in range(depth)]
    got: list[int] = []
    for future, following in itertools.pairwise(futures):
        future.add_done_callback(lambda _, following=following: got.append(following.result(PATIENCE)))  # type: ignore[misc]
    for number, future in enumerate(futures):
        delivery.settle(future, number, None)
    end = time.monotonic() + PATIENCE
    while len(got) < depth - 1 and time.monotonic() < end:
        delivery.tend(time.monotonic())
        time.sleep(0.01)
    assert sorted(got) == [1, 2, 3]


def test_a_settled_future_disturbs_nobody(delivery: Delivery, caplog: pytest.LogCaptureFixture) -> None:
    twice: Future[Any] = Future()
    twice.set_result(1)
    following: Future[Any] = Future()
    delivery.settle(twice, 2, None)
    delivery.settle(following, 3, None)
    assert following.result(PATIENCE) == 3
    assert twice.result() == 1
    assert "could not be settled" in caplog.text


def test_close_settles_what_is_queued(delivery: Delivery) -> None:
    futures: list[Future[int]] = [Future() for _ in range(50)]
    for future in futures:
        delivery.settle(future, 1, None)
    assert delivery.close(PATIENCE)
    assert all(future.done() for future in futures)


def test_close_is_bounded_and_says_so() -> None:
    delivery = Delivery("test-delivery")
    release = threading.Event()
    held: Future[int] = Future()
    held.add_done_callback(lambda _: release.wait(PATIENCE))
    delivery.settle(held, 1, None)
    began = time.monotonic()
    try:
        assert delivery.close(0.3) is False
        assert time.monotonic() - began < 2.0
    finally:
        release.set()
    assert delivery.close(PATIENCE)


def test_a_callback_may_close_it() -> None:
    """A user's callback may end the run: the thread does not wait for itself."""
    delivery = Delivery("test-delivery")
    closed: list[bool] = []
    future: Future[int] = Future()
    future.add_done_callback(lambda _: closed.append(delivery.close(PATIENCE)))
    began = time.monotonic()
    delivery.settle(future, 1, None)
    future.result(PATIENCE)
    while not closed and time.monotonic() < began + PATIENCE:
        time.sleep(0.01)
    assert closed == [True]
    assert time.monotonic() - began < 5.0


def test_a_callback_added_late_does_not_run_in_the_thread_that_adds_it() -> None:
    delivery = Delivery("late")
    ran_in: SimpleQueue[str] = SimpleQueue()

    def note(_: Future[Any]) -> None:
        ran_in.put(threading.current_thread().name)

    try:
        task = TaskFuture(7, delivery)
        task.add_done_callback(note)
        delivery.settle(task, 1, None)
        assert ran_in.get(timeout=10).startswith("late")
        assert task.result(10) == 1
        task.add_done_callback(note)
        assert ran_in.get(timeout=10).startswith("late")
        assert not task.cancel()
        assert task.parsl_executor_task_id == 7
    finally:
        assert delivery.close(10)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, MemoryError])
def test_what_a_callback_raises_ends_no_thread(delivery: Delivery, kind: type[BaseException]) -> None:
    def callback(_: Future[int]) -> None:
        raise kind

    bad = TaskFuture(1, delivery)
    bad.add_done_callback(callback)
    delivery.settle(bad, 1, None)
    good: list[Future[int]] = [Future() for _ in range(20)]
    for number, future in enumerate(good):
        delivery.settle(future, number, None)
    assert [future.result(PATIENCE) for future in good] == list(range(20))


def test_any_number_of_callbacks_may_wait_for_a_later_future(delivery: Delivery) -> None:
    waiting, last = [TaskFuture(number, delivery) for number in range(40)], TaskFuture(99, delivery)
    got: list[int] = []
    for future in waiting:
        future.add_done_callback(lambda _: got.append(last.result(PATIENCE)))
        delivery.settle(future, 0, None)
    delivery.settle(last, 7, None)
    end = time.monotonic() + 3 * PATIENCE
    while len(got) < len(waiting) and time.monotonic() < end:
        delivery.tend(time.monotonic() + 1.0)  # as if each had been waiting for a second
        time.sleep(0.001)
    assert got == [7] * len(waiting)


def test_a_thread_that_cannot_start_is_tried_again(delivery: Delivery, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = TaskFuture(1, delivery), TaskFuture(2, delivery)
    got: list[int] = []
    first.add_done_callback(lambda _: got.append(second.result(PATIENCE)))
    delivery.settle(first, 1, None)
    delivery.settle(second, 2, None)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(5):
            delivery.tend(time.monotonic() + 1.0)
    assert not got
    end = time.monotonic() + PATIENCE
    while not got and time.monotonic() < end:
        delivery.tend(time.monotonic() + 1.0)
        time.sleep(0.001)
    assert got == [2]
