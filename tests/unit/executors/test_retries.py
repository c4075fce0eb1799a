from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from diaspora_parsl.core.failures import ALL_RETRIES, Attribution, Kind
from diaspora_parsl.executors.retries import retry_handler
from diaspora_parsl.executors.runtime.futures import Delivery, TaskFuture


@pytest.fixture
def delivery() -> Iterator[Delivery]:
    delivery = Delivery("test")
    yield delivery
    assert delivery.close(5.0)


def failed(delivery: Delivery, kind: Kind, cost: float) -> TaskFuture:
    future = TaskFuture(1, delivery)
    future.verdict = Attribution(kind, cost)
    delivery.settle(future, None, ValueError("no"))
    assert isinstance(future.exception(5), ValueError)
    return future


@pytest.mark.parametrize("cost", [0.0, 1.0, ALL_RETRIES])
def test_the_verdict_is_the_cost(delivery: Delivery, cost: float) -> None:
    record = {"exec_fu": failed(delivery, Kind.USER, cost), "fail_count": 1}
    assert retry_handler(ValueError("no"), record) == cost


@pytest.mark.parametrize("future", [None, Future()])
def test_without_a_pool_each_failure_costs_one(future: Future[Any] | None) -> None:
    assert retry_handler(ValueError("no"), {"exec_fu": future, "fail_count": 1}) == 1.0


def test_free_retries_end(delivery: Delivery) -> None:
    record = {"exec_fu": failed(delivery, Kind.SUBMIT, 0.0), "fail_count": 21}
    assert retry_handler(ValueError("no"), record) == 1.0


def test_inside_a_callback_the_future_itself_counts(delivery: Delivery) -> None:
    """Parsl may still have the future of the try before in its record."""
    stale = failed(delivery, Kind.USER, 1.0)
    costs: list[float] = []
    done = threading.Event()

    def handle(_: Future[Any]) -> None:
        costs.append(retry_handler(ValueError("no"), {"exec_fu": stale, "fail_count": 2}))
        done.set()

    failed(delivery, Kind.USER, ALL_RETRIES).add_done_callback(handle)
    assert done.wait(5.0)
    assert costs == [ALL_RETRIES]
