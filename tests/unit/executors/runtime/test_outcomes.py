"""Nothing that a task returns or raises ends the thread that looks at it."""

from __future__ import annotations

from concurrent.futures import CancelledError, Future
from typing import Any

import pytest
from parsl.app.errors import RemoteExceptionWrapper

from diaspora_parsl.core.failure_rules import Rulebook
from diaspora_parsl.core.failures import Kind
from diaspora_parsl.errors import TaskExceptionError
from diaspora_parsl.executors.runtime.outcomes import Outcome, deliverable, outcome_of
from diaspora_parsl.executors.worker import node_gate
from tests.hostile import ERRORS, RESULTS

RULES = Rulebook()


def examine(*, value: Any = None, error: BaseException | None = None, is_gated: bool = False) -> Outcome:
    future: Future[Any] = Future()
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
    return outcome_of(future, RULES, is_app=False, is_gated=is_gated)


@pytest.mark.parametrize("name", RESULTS)
def test_a_hostile_result_is_passed_on_unchanged(name: str) -> None:
    value = RESULTS[name]()
    outcome = examine(value=value)
    assert outcome.failure is None
    assert outcome.error is None
    assert outcome.value is value


@pytest.mark.parametrize("name", RESULTS)
def test_a_hostile_result_behind_a_gate_is_passed_on_unchanged(name: str) -> None:
    value = RESULTS[name]()
    outcome = examine(value=node_gate.around(lambda: value)(1, 0, ""), is_gated=True)
    assert outcome.failure is None
    assert outcome.value is value
    assert outcome.node


@pytest.mark.parametrize("name", ERRORS)
def test_a_hostile_exception_is_a_failure_with_an_exception_that_parsl_can_deliver(name: str) -> None:
    outcome = examine(error=ERRORS[name]())
    assert outcome.failure is not None
    assert outcome.error is not None
    assert isinstance(outcome.error, Exception)
    assert outcome.error
    assert len(f"{outcome.error}{outcome.error!r}") > 0


@pytest.mark.parametrize("name", [name for name in ERRORS if name != "cyclic"])  # Parsl cannot wrap a cycle of causes
def test_a_hostile_exception_that_an_app_wrapped_is_a_failure(name: str) -> None:
    error = ERRORS[name]()
    outcome = examine(value=RemoteExceptionWrapper(type(error), error, None))
    assert outcome.failure is not None
    given = outcome.error
    if given is None:  # Parsl unwraps the result itself, and can
        assert deliverable(error) is error
    else:
        assert isinstance(given, TaskExceptionError)


@pytest.mark.parametrize("name", ["two-arguments", "properties", "cyclic", "no-arguments", "long", "group"])
def test_an_exception_that_parsl_can_deliver_is_delivered_itself(name: str) -> None:
    error = ERRORS[name]()
    assert examine(error=error).error is error


def test_a_cancelled_attempt_is_a_lost_one() -> None:
    future: Future[Any] = Future()
    future.cancel()
    outcome = outcome_of(future, RULES, is_app=False, is_gated=True)
    assert outcome.failure is not None
    assert outcome.failure.kind is Kind.MANAGER_LOST
    assert isinstance(outcome.error, CancelledError)


def test_an_attempt_that_is_not_done_is_a_failure_and_waits_for_nothing() -> None:
    assert outcome_of(Future(), RULES, is_app=False, is_gated=False).failure is not None
