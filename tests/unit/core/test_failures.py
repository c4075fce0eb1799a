from __future__ import annotations

import importlib
import inspect
import pickle
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool

import pytest
from parsl.errors import ParslError
from parsl.executors.errors import BadStateException, InvalidResourceSpecification
from parsl.executors.high_throughput.errors import ManagerLost, VersionMismatch, WorkerLost
from parsl.serialize.errors import DeserializationError, SerializationError

from diaspora_parsl import errors
from diaspora_parsl.core import failure_rules, failures
from diaspora_parsl.core.failures import Blame, Kind

classify = failure_rules.Rulebook().classify


def test_every_name_of_the_table_exists_in_the_installed_parsl() -> None:
    for name in (rule.error for rule in failure_rules.BUILT_IN if isinstance(rule.error, str) and "." in rule.error):
        module, _, qualname = name.rpartition(".")
        found = getattr(importlib.import_module(module), qualname)
        assert issubclass(found, BaseException)
        assert f"{found.__module__}.{found.__qualname__}" == name, "the class is only imported there"


def _parsl_error(kind: type[BaseException], *args: object) -> BaseException:
    """Build an error of Parsl without its own constructor, whose arguments vary."""
    error = BaseException.__new__(kind)
    BaseException.__init__(error, *args)
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (WorkerLost(3, "node-1"), Kind.WORKER_LOST),
        (ManagerLost(b"abc", "node-1"), Kind.MANAGER_LOST),
        (VersionMismatch("3.11", "3.12"), Kind.PLACE),
        (InvalidResourceSpecification({"cores"}), Kind.INVALID),
        (SerializationError("f"), Kind.INVALID),
        (CancelledError(), Kind.MANAGER_LOST),
        (BrokenProcessPool("a child died"), Kind.WORKER_LOST),
        (ValueError("the user's"), Kind.USER),
        (MemoryError(), Kind.RESOURCE),
        (ParslError("of another kind"), Kind.USER),
    ],
)
def test_kinds(error: BaseException, kind: Kind) -> None:
    failure = classify(error)
    assert failure.kind is kind
    assert failure.error == type(error).__name__


@pytest.mark.parametrize("cls", [BadStateException, DeserializationError, WorkerLost])
def test_subclasses_are_known_by_their_bases(cls: type[Exception]) -> None:
    class Richer(cls):  # type: ignore[misc,valid-type]
        def __str__(self) -> str:
            return "richer"

    assert classify(_parsl_error(Richer)).kind is classify(_parsl_error(cls)).kind


def test_an_unknown_exception_of_submit_is_the_endpoints() -> None:
    assert classify(RuntimeError("no"), from_submit=True).kind is Kind.SUBMIT
    assert classify(SerializationError("f"), from_submit=True).kind is Kind.INVALID


def test_what_is_raised_around_an_app_is_the_places() -> None:
    assert classify(ModuleNotFoundError("no module named 'x'"), app=True).kind is Kind.PLACE
    assert classify(WorkerLost(3, "node-1"), app=True).kind is Kind.WORKER_LOST


def test_blame() -> None:
    blame = {kind: failures.Failure(kind, "E", "").blame for kind in Kind}
    assert {kind for kind, whose in blame.items() if whose is Blame.TASK} == {Kind.USER, Kind.INVALID, Kind.POISON}
    assert {kind for kind, whose in blame.items() if whose is Blame.PLACE} == {Kind.PLACE, Kind.RESOURCE}


def test_messages_are_one_short_line() -> None:
    assert classify(ValueError("Error 1:\n\texit code 137")).message == "Error 1: exit code 137"
    assert len(classify(ValueError("x" * 1000)).message) == 300
    assert str(classify(ValueError())) == "ValueError"
    assert str(classify(ValueError("no"))) == "ValueError: no"


def test_an_exception_that_cannot_be_shown_hides_nothing() -> None:
    class Broken(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise RuntimeError("not even this")

    failure = classify(Broken())
    assert (failure.error, failure.message) == ("Broken", "(its text cannot be shown: RuntimeError)")


def test_the_pools_own_errors_survive_pickling() -> None:
    tree = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, Exception)]
    assert len(tree) > 5
    for cls in tree:
        copy = pickle.loads(pickle.dumps(cls("why")))  # noqa: S301 - our own
        assert type(copy) is cls
        assert str(copy) == "why"
