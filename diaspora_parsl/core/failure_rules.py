"""Failure rules: map an exception to a kind of failure and an action; the first matching rule applies."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import force_setattr

from diaspora_parsl.core.failures import Failure, FailureAction, Kind
from diaspora_parsl.errors import ConfigurationError

#: Characters of an exception's text that rules search, and that events carry.
_SEARCHED: Final = 10_000
_SHOWN: Final = 300


class Rule(Struct, frozen=True, kw_only=True):
    """Classifies the exceptions that satisfy all given conditions.

    Example:
        >>> Rule(error="OSError", message="Stale file handle", kind="place", action="elsewhere").action
        <FailureAction.ELSEWHERE: 'elsewhere'>

    Raises:
        ConfigurationError: the rule is invalid; the message says what to write instead.
    """

    error: str | type[BaseException] | None = None
    """Type of the exception or of one of its bases: a class, its name, or its full dotted name."""
    message: str | None = None
    """Regular expression searched in the text of the exception."""
    exit_code: int | None = None
    """Exit code of the program that failed; negative for a signal."""
    raised: bool | None = None
    """True: match only what the task's own code raised; False: only what the endpoint raised."""
    kind: Kind | str | None = None
    """Kind of the failure; None: the kind without this rule."""
    action: FailureAction | str | None = None
    """Action that follows; None: the default of the kind."""
    charge: bool = True
    """Whether the failure counts against Parsl's retries if it is delivered."""

    def __post_init__(self) -> None:
        shown = f"Rule(error={self.error!r}, message={self.message!r}, exit_code={self.exit_code!r})"
        if self.error is None and self.message is None and self.exit_code is None:
            raise ConfigurationError('A Rule needs a condition: Rule(error="OSError", ...), message= or exit_code=.')
        if isinstance(self.error, type) and not issubclass(self.error, BaseException):
            raise ConfigurationError(f"{shown}: error must be an exception class or its name.")
        try:
            re.compile(self.message or "")
        except re.error as error:
            raise ConfigurationError(f"{shown}: message is no regular expression ({error}).") from None
        for name, kind in (("kind", Kind), ("action", FailureAction)):
            value = getattr(self, name)
            if value is None:
                continue
            try:
                force_setattr(self, name, kind(value))
            except ValueError:
                known = ", ".join(repr(str(member)) for member in kind)
                raise ConfigurationError(f"{shown}: {name}={value!r}; write one of {known}.") from None
        if self.action is FailureAction.FAIL and not self.charge:
            raise ConfigurationError(f'{shown}: action="fail" ends the task, so charge=False is no use.')

    def matches(self, names: frozenset[str], text: str, code: int | None, *, raised: bool) -> bool:
        """Whether all conditions hold for these type names, this text, exit code and origin."""
        if self.raised is not None and self.raised is not raised:
            return False
        if self.error is not None:
            error = self.error
            if (error if isinstance(error, str) else f"{error.__module__}.{error.__qualname__}") not in names:
                return False
        if self.exit_code is not None and self.exit_code != code:
            return False
        return self.message is None or re.search(self.message, text) is not None


def _around(error: str, kind: Kind) -> Rule:
    return Rule(error=error, kind=kind, raised=False)


def _remote(message: str, kind: Kind) -> Rule:
    return Rule(
        error="globus_compute_sdk.errors.error_types.TaskExecutionFailed", message=message, kind=kind, raised=False
    )


def _fails(error: str) -> Rule:
    return Rule(error=error, kind=Kind.USER, action=FailureAction.FAIL, raised=True)


#: Rules for exceptions of executors, by full name because the core imports no executor.
INFRASTRUCTURE: Final = (
    _around("parsl.executors.high_throughput.errors.WorkerLost", Kind.WORKER_LOST),
    _around("parsl.executors.high_throughput.errors.ManagerLost", Kind.MANAGER_LOST),
    _around("parsl.executors.high_throughput.errors.VersionMismatch", Kind.PLACE),
    _around("parsl.executors.high_throughput.errors.CommandClientTimeoutError", Kind.ENDPOINT_LOST),
    _around("parsl.executors.high_throughput.errors.CommandClientBadError", Kind.ENDPOINT_LOST),
    _around("parsl.executors.errors.BadStateException", Kind.ENDPOINT_LOST),
    _around("parsl.executors.errors.ScalingFailed", Kind.ENDPOINT_LOST),
    _around("parsl.jobs.errors.TooManyJobFailuresError", Kind.ENDPOINT_LOST),
    _around("parsl.executors.errors.InvalidResourceSpecification", Kind.INVALID),
    _around("parsl.serialize.errors.SerializationError", Kind.INVALID),
    _around("parsl.serialize.errors.DeserializationError", Kind.PLACE),
    _around("parsl.serialize.errors.DeserializerPluginError", Kind.PLACE),
    _around("diaspora_parsl.errors.SubmitFailedError", Kind.SUBMIT),
    _around("diaspora_parsl.errors.AttemptLostError", Kind.MANAGER_LOST),
    _around("diaspora_parsl.errors.PayloadTooLargeError", Kind.PLACE),
    _around("globus_compute_sdk.errors.error_types.SerializationError", Kind.INVALID),
    # Globus Compute raises one exception for all failures around a task; only its text names the class.
    _remote(r"\bWorkerLost\b", Kind.WORKER_LOST),
    _remote(r"\bManagerLost\b", Kind.MANAGER_LOST),
    _remote(r"MaxResultSizeExceeded|DeserializationError|SerializationError", Kind.PLACE),
    _around("zmq.error.Again", Kind.ENDPOINT_LOST),  # a bounded send to a blocked interchange
    _around("concurrent.futures._base.CancelledError", Kind.MANAGER_LOST),
    _around("concurrent.futures.process.BrokenProcessPool", Kind.WORKER_LOST),
    _around("concurrent.futures.thread.BrokenThreadPool", Kind.ENDPOINT_LOST),
)

_GPU: Final = r"(?i)\bCUDA|cuDNN|cuBLAS|NCCL|\bHIP error|ROCm|\bNVML|no GPU|device-side|ECC error"
_OUT_OF_MEMORY: Final = r"(?i)out of memory|cannot allocate memory|oom.?kill|std::bad_alloc"

#: Rules for exceptions of tasks. An exception without a rule may depend on the endpoint and gets a second opinion.
USERS: Final = (
    # Resources: another endpoint may have more.
    Rule(error="MemoryError", kind=Kind.RESOURCE, action=FailureAction.MORE),
    Rule(message=_OUT_OF_MEMORY, kind=Kind.RESOURCE, action=FailureAction.MORE, raised=True),
    Rule(exit_code=137, kind=Kind.RESOURCE, action=FailureAction.MORE, raised=True),  # SIGKILL, reported by a shell
    Rule(exit_code=-9, kind=Kind.RESOURCE, action=FailureAction.MORE, raised=True),
    Rule(error="OSError", message="Too many open files", kind=Kind.RESOURCE, action=FailureAction.ELSEWHERE),
    Rule(error="parsl.app.errors.AppTimeout", kind=Kind.RESOURCE, action=FailureAction.ELSEWHERE),
    # Places: a package, a program, a file system or a GPU that another endpoint may have.
    Rule(error="ImportError", kind=Kind.PLACE, action=FailureAction.ELSEWHERE),
    Rule(error="OSError", kind=Kind.PLACE, action=FailureAction.ELSEWHERE),  # missing, full, stale, ...
    Rule(exit_code=126, kind=Kind.PLACE, action=FailureAction.ELSEWHERE, raised=True),  # shell: not executable
    Rule(exit_code=127, kind=Kind.PLACE, action=FailureAction.ELSEWHERE, raised=True),  # shell: not found
    Rule(message=_GPU, kind=Kind.PLACE, action=FailureAction.ELSEWHERE, raised=True),
    Rule(message="size changed, may indicate binary incompat", kind=Kind.PLACE, action=FailureAction.ELSEWHERE),
    # The task's own: every endpoint raises the same.
    _fails("ArithmeticError"),
    _fails("AssertionError"),
    _fails("AttributeError"),
    _fails("LookupError"),
    _fails("NameError"),
    _fails("NotImplementedError"),
    _fails("RecursionError"),
    _fails("SyntaxError"),
    _fails("TypeError"),
    _fails("ValueError"),
)

#: Rules of every pool.
BUILT_IN: Final = INFRASTRUCTURE + USERS


class Rulebook:
    """The rules of one pool.

    Args:
        rules: Rules of the user, matched before the built-in ones.
    """

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self.rules = (*rules, *BUILT_IN)

    def classify(
        self, error: BaseException, *, raised: bool = False, from_submit: bool = False, app: bool = False
    ) -> Failure:
        """Classify an exception.

        Args:
            error: Exception of a task or of an endpoint.
            raised: Whether the task's own code is known to have raised it.
            from_submit: Whether the endpoint's ``submit`` raised it.
            app: Whether the callable was a Parsl app. An app returns its own exceptions as a *result*, so an exception
                was raised around the user's code: the worker could not load the task.

        Returns:
            The failure. Without a matching rule its kind is ``SUBMIT`` for a refusal, ``PLACE`` for an exception from
            around the user's code, and otherwise ``USER``, with a second opinion.
        """
        names, text, code = _names(error), _text(error), _exit_code(error)
        known = None
        if not raised:
            known = next((rule for rule in INFRASTRUCTURE if rule.matches(names, text, code, raised=False)), None)
        raised = raised or not (known is not None or from_submit or app)
        rule = next((rule for rule in self.rules if rule.matches(names, text, code, raised=raised)), None)
        usual = Kind.SUBMIT if from_submit else Kind.PLACE if app else Kind.USER
        if known is not None and known.kind is not None:
            usual = Kind(known.kind)
        action = rule.action if rule is not None else FailureAction.ELSEWHERE if raised else None
        return Failure(
            usual if rule is None or rule.kind is None else Kind(rule.kind),
            type(error).__name__,
            text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…",
            None if action is None else FailureAction(action),
            charge=rule is None or rule.charge,
            raised=raised,
            killed=known is not None and known.kind is Kind.WORKER_LOST,
        )


def _names(error: BaseException) -> frozenset[str]:
    bases = type(error).__mro__
    return frozenset([cls.__name__ for cls in bases] + [f"{cls.__module__}.{cls.__qualname__}" for cls in bases])


def _text(error: BaseException) -> str:
    try:
        return " ".join(str(error)[:_SEARCHED].split())
    except BaseException as broken:  # noqa: BLE001 - a user's __str__ may raise anything
        return f"(its text cannot be shown: {type(broken).__name__})"


def _exit_code(error: Any) -> int | None:
    for name in ("exitcode", "returncode"):  # Parsl's BashExitFailure, subprocess
        try:
            code = getattr(error, name, None)
        except BaseException:  # noqa: BLE001 - a user's attribute may raise anything; then it is no exit code
            code = None
        if type(code) is int:
            return code
    return None


def as_rules(given: Iterable[Rule]) -> tuple[Rule, ...]:
    """Validate a user's rules.

    Raises:
        ConfigurationError: an item is not a `Rule`.
    """
    rules = tuple(given)
    for rule in rules:
        if not isinstance(rule, Rule):
            raise ConfigurationError(
                f'{rule!r} among the rules: give a list of Rule: rules=[Rule(error="OSError", action="elsewhere")].'
            )
    return rules
