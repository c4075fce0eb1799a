"""Whose fault an exception is: a place that lacks a module, a task that is doomed, a slot that is too small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import diaspora_parsl
from diaspora_parsl import Endpoint
from diaspora_parsl import events as ev
from diaspora_parsl.core.failures import ALL_RETRIES
from diaspora_parsl.testing.local_sites import LocalSite
from tests.integration.conftest import SLOTS, PoolOf

APPLICATIONS, STEPS = 200, 4


def needs_module(number: int, book: str) -> int:
    """Works where the module is, and writes down where it ran."""
    import os  # noqa: PLC0415 - it travels alone

    with open(book, "a", encoding="utf-8") as handle:  # noqa: PTH123 - short lines, appended whole
        handle.write(os.environ["DIASPORA_PARSL_SITE"] + "\n")
    import only_at_beta  # type: ignore[import-not-found] # noqa: PLC0415

    return int(only_at_beta.double(number))


def divides(book: str) -> float:
    """Doomed, and writes down each execution."""
    with open(book, "a", encoding="utf-8") as handle:  # noqa: PTH123
        handle.write("x")
    return 1 / 0


def breaks(book: str) -> None:
    """Doomed, but its error could be that of the place."""
    import os  # noqa: PLC0415

    with open(book, "a", encoding="utf-8") as handle:  # noqa: PTH123
        handle.write(os.environ["DIASPORA_PARSL_SITE"] + "\n")
    raise RuntimeError("the input is bad")


def eats(book: str) -> str:
    """Needs more memory than the small site has."""
    import os  # noqa: PLC0415

    site = os.environ["DIASPORA_PARSL_SITE"]
    with open(book, "a", encoding="utf-8") as handle:  # noqa: PTH123
        handle.write(site + "\n")
    if site != "large":
        raise MemoryError("Unable to allocate 40 GiB")
    return site


def test_one_of_two_places_lacks_a_module(pool_of: PoolOf, tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    (library / "only_at_beta.py").write_text("def double(x):\n    return 2 * x\n", encoding="utf-8")
    book = f"{tmp_path}/book"
    with (
        LocalSite("alpha", workers=SLOTS) as alpha,
        LocalSite("beta", workers=SLOTS, environment={"PYTHONPATH": str(library)}) as beta,
        pool_of(alpha, beta) as run,
    ):
        run.warm_up("alpha", "beta")
        app = run.app(needs_module)
        applications: list[Any] = []
        for _ in range(APPLICATIONS):
            step: Any = 1
            for _ in range(STEPS):
                step = app(step, book)
            applications.append(step)
        assert [future.result(120) for future in applications] == [2**STEPS] * APPLICATIONS
        ran = Path(book).read_text(encoding="utf-8").split()
        assert 1 <= ran.count("alpha") <= 4 * SLOTS, "what was learnt keeps the function away"
        assert not run.events(ev.TaskFailed)
        assert any("second opinion" in event.reason for event in run.events(ev.TaskRerouted, endpoint="alpha"))
        assert not run.events(ev.EndpointSuspect)
        assert run.results(run.tasks(20, 0.05)), "other functions still go to both"


def test_a_doomed_task_costs_no_retries(
    pool_of: PoolOf, two_sites: tuple[LocalSite, LocalSite], tmp_path: Path
) -> None:
    config = {"retries": 3, "retry_handler": diaspora_parsl.retry_handler}
    with pool_of(*two_sites, config=config) as run:
        run.warm_up("alpha", "beta")
        book = f"{tmp_path}/divides"
        future: Any = run.app(divides)(book)
        with pytest.raises(ZeroDivisionError):
            future.result(60)
        assert Path(book).read_text(encoding="utf-8") == "x"
        assert future.task_record["fail_cost"] == ALL_RETRIES

        book = f"{tmp_path}/breaks"
        with pytest.raises(RuntimeError, match="the input is bad") as raised:
            run.app(breaks)(book).result(60)
        assert sorted(Path(book).read_text(encoding="utf-8").split()) == ["alpha", "beta"]
        assert any("came from" in note for note in raised.value.__notes__)


def test_what_may_not_run_twice_leaves_retries_to_parsl(
    pool_of: PoolOf, two_sites: tuple[LocalSite, LocalSite], tmp_path: Path
) -> None:
    config = {"retries": 2, "retry_handler": diaspora_parsl.retry_handler}
    with pool_of(*two_sites, config=config, second_opinion=False) as run:
        book = f"{tmp_path}/breaks"
        with pytest.raises(RuntimeError):
            run.app(breaks)(book).result(60)
        assert len(Path(book).read_text(encoding="utf-8").split()) == 3


def test_memory_is_looked_for_where_there_is_more(pool_of: PoolOf, tmp_path: Path) -> None:
    with LocalSite("small", workers=SLOTS) as small, LocalSite("large", workers=SLOTS) as large:
        places = [
            Endpoint(site.endpoint.executor, mem_per_worker=memory)  # type: ignore[arg-type] # a LocalSite has an executor
            for site, memory in ((small, 2.0), (large, 8.0))
        ]
        with pool_of(*places) as run:
            run.warm_up("small", "large")
            app = run.app(eats)
            futures = [app(f"{tmp_path}/eats") for _ in range(8)]
            assert [future.result(60) for future in futures] == ["large"] * 8
            ran = (tmp_path / "eats").read_text(encoding="utf-8").split()
            assert ran.count("large") == 8
            assert not run.events(ev.TaskFailed)
            doomed = run.app(starves)()
            with pytest.raises(MemoryError):
                doomed.result(60)
            (published,) = run.events(ev.TaskFailed)
            assert (published.kind, published.endpoint) == ("resource", "large")
            assert "8 GB per slot at large" in published.reason


def starves() -> None:
    """Needs more than anybody has."""
    raise MemoryError
