"""Outcomes of attempts: the one place that touches what a user's code returned or raised."""

from __future__ import annotations

import logging
import reprlib
from concurrent.futures import CancelledError, Future
from typing import Any, NamedTuple

from diaspora_parsl.core.failure_rules import Rulebook
from diaspora_parsl.core.failures import Failure
from diaspora_parsl.errors import TaskExceptionError

from ..parsl import adapter
from ..worker import node_gate

logger = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """The end of one attempt."""

    value: Any
    """Result of the attempt, as its executor gave it."""
    error: BaseException | None
    """Exception to deliver instead of the result; None delivers the result."""
    failure: Failure | None
    """Classified failure; None if the attempt succeeded."""
    node: str = ""
    """Host, block and manager, separated by blanks, if a gate reported them."""
    is_refused: bool = False
    """Whether the gate refused to run the task there."""


def outcome_of(attempt: Future[Any] | Exception, rules: Rulebook, *, is_app: bool, is_gated: bool) -> Outcome:
    """Return the outcome of an attempt. Never raises.

    An object of a user may raise whatever is asked of it: its attributes, its text, its truth value. Elsewhere the pool
    only passes it on and looks at ``type(object)``.

    Args:
        attempt: Done future of the attempt, or the exception that ``submit`` raised.
        rules: Classify its exception.
        is_app: Whether the callable was a Parsl app.
        is_gated: Whether the attempt went through a gate.
    """
    try:
        return _outcome_of(attempt, rules, is_app=is_app, is_gated=is_gated)
    except BaseException as broken:  # an object of a user may raise anything when it is touched
        logger.warning("The outcome of an attempt cannot be examined", exc_info=True)
        error = TaskExceptionError(f"the outcome of the task cannot be examined: {type(broken).__name__}")
        return Outcome(None, error, rules.classify(error, raised=True))


def _outcome_of(attempt: Future[Any] | Exception, rules: Rulebook, *, is_app: bool, is_gated: bool) -> Outcome:
    if isinstance(attempt, Exception):
        return Outcome(None, attempt, rules.classify(attempt, from_submit=True))
    try:
        error = attempt.exception(timeout=0)
    except CancelledError as cancelled:
        error = cancelled
    if error is not None:
        return Outcome(None, deliverable(error), rules.classify(error, app=is_app))
    value, node = attempt.result(timeout=0), ""
    report = node_gate.opened(value) if is_gated else None
    if report is not None:
        node, value = report.node, report.value
        if report.refused:
            return Outcome(None, None, None, node, is_refused=True)
    raised = adapter.raised_by_user(value)
    if raised is None:
        return Outcome(value, None, None, node)
    failure = rules.classify(raised, raised=True)
    usable = deliverable(raised)
    if report is not None and report.raised and usable is raised:
        usable = value.get_exception()  # with the traceback of the worker
    elif usable is raised:
        return Outcome(value, None, failure, node)  # an app: Parsl itself unwraps its result
    return Outcome(None, usable, failure, node)


def deliverable(error: BaseException) -> BaseException:
    """Return the exception, or a stand-in if Parsl cannot handle it.

    Parsl formats an exception, asks for its truth value, and catches only `Exception`. Where that fails, its future is
    never settled.
    """
    kind = type(error)
    try:
        if issubclass(kind, Exception) and error and isinstance(f"{error}{error!r}", str):
            return error
        text = reprlib.repr(error)
    except BaseException as broken:  # noqa: BLE001 - as above
        text = f"{kind.__name__}, which raises {type(broken).__name__} when it is formatted"
    return TaskExceptionError(f"the task raised {text}, which Parsl cannot deliver")
