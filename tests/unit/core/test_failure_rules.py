from __future__ import annotations

import subprocess
from typing import Any

import pytest
from parsl.app.errors import AppTimeout, BashExitFailure
from parsl.executors.high_throughput.errors import ManagerLost, WorkerLost

from diaspora_parsl.core.failure_rules import Rule, Rulebook, as_rules
from diaspora_parsl.core.failures import FailureAction, Kind
from diaspora_parsl.errors import ConfigurationError

FAIL, ANYWHERE, ELSEWHERE, MORE = FailureAction


@pytest.mark.parametrize(
    ("error", "kind", "action"),
    [
        (ZeroDivisionError("division by zero"), Kind.USER, FAIL),
        (AssertionError(), Kind.USER, FAIL),
        (KeyError("x"), Kind.USER, FAIL),
        (UnicodeDecodeError("utf-8", b"", 0, 1, "no"), Kind.USER, FAIL),
        (RecursionError(), Kind.USER, FAIL),
        (ValueError("numpy.ndarray size changed, may indicate binary incompatibility"), Kind.PLACE, ELSEWHERE),
        (ModuleNotFoundError("No module named 'x'"), Kind.PLACE, ELSEWHERE),
        (FileNotFoundError(2, "No such file or directory"), Kind.PLACE, ELSEWHERE),
        (OSError(28, "No space left on device"), Kind.PLACE, ELSEWHERE),
        (OSError(24, "Too many open files"), Kind.RESOURCE, ELSEWHERE),
        (OSError(12, "Cannot allocate memory"), Kind.RESOURCE, MORE),
        (MemoryError(), Kind.RESOURCE, MORE),
        (RuntimeError("CUDA error: device-side assert triggered"), Kind.PLACE, ELSEWHERE),
        (RuntimeError("CUDA out of memory"), Kind.RESOURCE, MORE),
        (RuntimeError("of no known kind"), Kind.USER, ELSEWHERE),
        (subprocess.CalledProcessError(127, "dock"), Kind.PLACE, ELSEWHERE),
        (subprocess.CalledProcessError(-9, "dock"), Kind.RESOURCE, MORE),
        (subprocess.CalledProcessError(1, "dock"), Kind.USER, ELSEWHERE),
        (BashExitFailure("dock", 137), Kind.RESOURCE, MORE),
        (AppTimeout(), Kind.RESOURCE, ELSEWHERE),
    ],
)
def test_what_a_task_raises(error: BaseException, kind: Kind, action: FailureAction) -> None:
    failure = Rulebook().classify(error, raised=True)
    assert (failure.kind, failure.then, failure.is_own) == (kind, action, True)
    assert not failure.costs_worker


def test_what_comes_from_around_an_app_is_not_the_tasks() -> None:
    for error in (TypeError("an integer is required"), ImportError("no module")):
        failure = Rulebook().classify(error, app=True)
        assert (failure.kind, failure.then, failure.is_own) == (Kind.PLACE, ELSEWHERE, False)


def test_a_task_that_raises_the_error_of_an_executor_raised_it() -> None:
    failure = Rulebook().classify(ManagerLost(b"abc", "node-1"), raised=True)
    assert (failure.kind, failure.is_own) == (Kind.USER, True)


def test_the_first_rule_that_matches_counts_and_the_users_come_first() -> None:
    class StaleError(OSError):
        pass

    book = Rulebook(
        [
            Rule(error="OSError", message="stale", action="anywhere", charge=False),
            Rule(error=StaleError, kind="user", action="fail"),
            Rule(error="OSError", kind="resource"),
        ]
    )
    first, second, third, other = (
        book.classify(error, raised=True)
        for error in (StaleError("stale"), StaleError("x"), OSError("x"), ImportError())
    )
    assert (first.kind, first.then, first.charge) == (Kind.USER, ANYWHERE, False)
    assert (second.kind, second.then, second.charge) == (Kind.USER, FAIL, True)
    assert (third.kind, third.then) == (Kind.RESOURCE, ELSEWHERE)
    assert other.kind is Kind.PLACE


def test_a_rule_may_say_that_a_lost_worker_ran_out_of_memory() -> None:
    failure = Rulebook([Rule(error="WorkerLost", action="more")]).classify(WorkerLost(3, "node-1"), app=True)
    assert (failure.kind, failure.then) == (Kind.WORKER_LOST, MORE)
    assert failure.costs_worker
    failure = Rulebook([Rule(error="WorkerLost", kind="resource", action="more")]).classify(
        WorkerLost(3, "n"), app=True
    )
    assert failure.kind is Kind.RESOURCE
    assert failure.costs_worker


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "needs a condition"),
        ({"error": int}, "exception class or its name"),
        ({"message": "("}, "no regular expression"),
        ({"error": "OSError", "kind": "mine"}, "write one of 'user', 'invalid'"),
        ({"error": "OSError", "action": "retry"}, "write one of 'fail', 'anywhere', 'elsewhere', 'more'"),
        ({"error": "OSError", "action": "fail", "charge": False}, "charge=False"),
    ],
)
def test_a_rule_that_cannot_work_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        Rule(**options)


def test_only_rules_are_rules() -> None:
    with pytest.raises(ConfigurationError, match="give a list of Rule"):
        as_rules(["OSError"])  # type: ignore[list-item]
