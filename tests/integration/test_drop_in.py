"""Everything that Parsl's own executors do works through a pool: one line of a `Config` is all that changes."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import parsl
import pytest
from parsl.data_provider.files import File
from parsl.dataflow.memoization import BasicMemoizer
from parsl.executors import ThreadPoolExecutor
from parsl.utils import get_all_checkpoints

from diaspora_parsl import Endpoint
from diaspora_parsl import events as ev
from diaspora_parsl.errors import PlacementError
from diaspora_parsl.testing.local_sites import LocalSite

if TYPE_CHECKING:
    from tests.integration.conftest import PoolOf, Run


def note(book: str, line: str) -> None:
    """One more line in a file."""
    with Path(book).open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def lines(book: Path) -> list[str]:
    return book.read_text(encoding="utf-8").splitlines() if book.exists() else []


def threads(label: str, **options: Any) -> Endpoint:
    return Endpoint(ThreadPoolExecutor(label=label, max_threads=2), **options)


@pytest.mark.filterwarnings("ignore:unclosed file <_io.TextIOWrapper name='.*(out|err):ResourceWarning")
def test_apps_of_every_kind_and_whatever_hangs_on_their_futures(pool_of: PoolOf, tmp_path: Path) -> None:
    with LocalSite("alpha", workers=2) as alpha, pool_of(alpha, threads("beta")) as run:
        run.warm_up("alpha", "?")
        _python_apps(run, tmp_path)
        _bash_apps(run, tmp_path)
        _join_apps(run)
        _what_waits_for_the_pool(run)
        _staging(run, tmp_path)
        _a_users_own_exception(run, tmp_path)


def _python_apps(run: Run, folder: Path) -> None:
    def add(first: int, second: int) -> int:
        return first + second

    app = run.app(add)
    future = app(app(1, 2), app(3, 4))  # dependents
    assert future.result(20) == 10
    outer: Any = future
    numbers = [event.task for event in run.events(ev.TaskSubmitted)]
    task = run.pool.submit(print, {"priority": 1}, file=None, end="")
    assert getattr(task, "parsl_executor_task_id") > max(numbers)  # noqa: B009 - not declared by Future
    assert task.result(20) is None
    assert outer.tid >= 0
    assert folder.is_dir()


def _bash_apps(run: Run, folder: Path) -> None:
    def write(text: str, outputs: Any = (), stdout: str | None = None, stderr: str | None = None) -> str:
        del stdout, stderr  # Parsl's
        return f"echo {text}; echo oops >&2; echo {text} > {outputs[0].filepath}"

    def fail() -> str:
        return "exit 3"

    app = parsl.bash_app(_travelling(write), data_flow_kernel=run.dfk)
    for number in range(4):  # at both endpoints
        out, err, made = (folder / f"{name}{number}" for name in ("out", "err", "made"))
        future = app(f"hello{number}", outputs=[File(str(made))], stdout=str(out), stderr=str(err))
        assert future.result(20) == 0
        assert Path(future.outputs[0].result(20).filepath).read_text() == f"hello{number}\n"
        assert out.read_text() == f"hello{number}\n"
        assert "oops" in err.read_text()
    gc.collect()  # Parsl does not close them; in threads that is here
    failing = parsl.bash_app(_travelling(fail), data_flow_kernel=run.dfk)()
    with pytest.raises(parsl.app.errors.BashExitFailure, match="exit code 3"):
        failing.result(20)


def _join_apps(run: Run) -> None:
    def double(number: int) -> int:
        return 2 * number

    inner = run.app(double)
    join = parsl.join_app(lambda number: [inner(number), inner(number + 1)], data_flow_kernel=run.dfk)
    assert join(3).result(20) == [6, 8]


def _what_waits_for_the_pool(run: Run) -> None:
    """Callbacks, and callbacks of callbacks, that wait for further tasks of the same pool do not block it."""

    def double(number: int) -> int:
        return 2 * number

    app = run.app(double)
    seen: list[int] = []
    done = threading.Event()

    def deeper(future: Future[Any]) -> None:
        seen.append(app(future.result()).result(20))
        done.set()

    def wait(future: Future[Any]) -> None:
        second = app(future.result())
        second.add_done_callback(deeper)
        seen.append(second.result(20))

    first = app(1)
    first.add_done_callback(wait)
    assert [future.result(20) for future in [app(number) for number in range(20)]] == list(range(0, 40, 2))
    assert done.wait(20)
    assert sorted(seen) == [4, 8]


def _staging(run: Run, folder: Path) -> None:
    def shout(inputs: Any = (), outputs: Any = ()) -> None:
        from pathlib import Path  # noqa: PLC0415 - it travels alone

        Path(outputs[0].filepath).write_text(Path(inputs[0].filepath).read_text().upper())

    app = run.app(shout)
    (folder / "quiet").write_text("hush")
    first = app(inputs=[File(str(folder / "quiet"))], outputs=[File(str(folder / "loud"))])
    second = app(inputs=[first.outputs[0]], outputs=[File(f"file://{folder}/louder")])  # type: ignore[attr-defined]
    assert second.result(20) is None
    assert (folder / "louder").read_text() == "HUSH"


def _a_users_own_exception(run: Run, folder: Path) -> None:
    """Unchanged in type and text, at once, after one execution."""

    def boom(book: str) -> None:
        from pathlib import Path  # noqa: PLC0415 - it travels alone

        with Path(book).open("a", encoding="utf-8") as file:
            file.write("boom\n")
        raise ZeroDivisionError("as it is")

    before = len(run.events(ev.TaskRerouted))
    for number in range(6):  # at both endpoints
        book = folder / f"boom{number}"
        began = time.monotonic()
        error = run.app(boom)(str(book)).exception(20)
        assert type(error) is ZeroDivisionError
        assert str(error) == "as it is"
        assert time.monotonic() - began < 3.0
        assert lines(book) == ["boom"]
    run.until(lambda: [event.kind for event in run.events(ev.TaskFailed)].count("user") >= 6)
    assert len(run.events(ev.TaskRerouted)) == before
    assert not run.events(ev.EndpointDown)


def _travelling(function: Callable[..., Any]) -> Callable[..., Any]:
    """See `Run.app`: workers do not have this module."""
    import builtins  # noqa: PLC0415
    import types  # noqa: PLC0415

    copy = types.FunctionType(
        function.__code__, {"__builtins__": builtins, "__name__": "__main__"}, function.__name__, function.__defaults__
    )
    copy.__module__ = "__main__"
    return copy


@pytest.mark.serial
def test_retries_count_failures_of_the_user_only(pool_of: PoolOf, tmp_path: Path) -> None:
    def flaky(book: str, seconds: float, failures: int) -> str:
        import os  # noqa: PLC0415 - it travels alone
        import time  # noqa: PLC0415
        from pathlib import Path  # noqa: PLC0415

        site = os.environ["DIASPORA_PARSL_SITE"]
        with Path(book).open("a", encoding="utf-8") as file:
            file.write(f"{site}\n")
        if site == "alpha":
            time.sleep(seconds)
        if sum(line != "alpha" for line in Path(book).read_text().split()) <= failures:
            raise ValueError("flaky")
        return site

    with (
        LocalSite("alpha", tags=frozenset({"a"})) as alpha,
        LocalSite("beta") as beta,
        pool_of(alpha, beta, config={"retries": 1}) as run,
    ):
        run.warm_up("alpha", "beta")
        app = run.app(flaky)
        # Its place is lost, then it fails, then it is retried: the loss is not charged.
        books = [tmp_path / f"book{number}" for number in range(3)]
        futures = [app(str(books[0]), 30.0, 1), app(str(books[1]), 30.0, 1)]
        run.until(lambda: any("alpha" in lines(book) for book in books))
        alpha.kill()
        assert [future.result(30) for future in futures] == ["beta", "beta"]
        assert sorted(len(lines(book)) for book in books[:2]) == [2, 3]
        # It fails always: one retry, no more.
        hopeless = app(str(books[2]), 0.0, 99)
        assert isinstance(hopeless.exception(30), ValueError)
        assert lines(books[2]) == ["beta", "beta"]


def test_memoization_and_checkpoints(pool_of: PoolOf, tmp_path: Path) -> None:
    book = tmp_path / "book"

    def square(number: int, book: str) -> int:
        from pathlib import Path  # noqa: PLC0415 - as all apps here

        with Path(book).open("a", encoding="utf-8") as file:
            file.write(f"{number}\n")
        return number**2

    memoizer = BasicMemoizer(memoize=True, checkpoint_mode="task_exit")
    with pool_of(threads("a"), threads("b"), config={"memoizer": memoizer}) as run:
        app = run.app(square, cache=True)
        assert [app(number, str(book)).result(10) for number in (3, 4, 3, 4)] == [9, 16, 9, 16]
        run_dir = run.run_dir
    assert sorted(lines(book)) == ["3", "4"]
    memoizer = BasicMemoizer(memoize=True, checkpoint_files=get_all_checkpoints(str(run_dir.parent)))
    with pool_of(threads("a"), threads("b"), config={"memoizer": memoizer}) as run:
        app = run.app(square, cache=True)
        assert [app(number, str(book)).result(10) for number in (3, 4, 5)] == [9, 16, 25]
    assert sorted(lines(book)) == ["3", "4", "5"]


def test_resource_specifications_are_filtered_per_endpoint(pool_of: PoolOf) -> None:
    def where(parsl_resource_specification: Any = None) -> str:
        import threading  # noqa: PLC0415 - as all apps here

        return f"{threading.current_thread().name} {sorted(parsl_resource_specification or {})}"

    def thread_pool(label: str, tags: set[str]) -> Endpoint:
        return Endpoint(ThreadPoolExecutor(label=label, max_threads=1, thread_name_prefix=label), tags=tags)

    with pool_of(thread_pool("plain", set()), thread_pool("fast", {"gpu", "big"})) as run:
        app = run.app(where)
        for specification in ({"priority": 3}, {"priority": 1, "tags": []}):
            assert "_" in app(parsl_resource_specification=specification).result(10)  # threads alone would refuse it
        for tags in (["gpu"], {"gpu", "big"}, "big"):
            futures = [app(parsl_resource_specification={"tags": tags, "priority": 2}) for _ in range(6)]
            assert {future.result(10).split("_")[0] for future in futures} == {"fast"}
        for tags, named in ((["tpu"], "tpu"), (["gpu", "tpu"], "tpu")):
            error = app(parsl_resource_specification={"tags": tags}).exception(10)
            assert type(error) is PlacementError
            assert named in str(error)
            assert "There are: big, gpu." in str(error)
            assert "Write Endpoint(..., tags={...})." in str(error)
        error = app(parsl_resource_specification={"tags": 5}).exception(10)
        assert type(error) is PlacementError
        assert 'write {"tags": ["gpu"]}' in str(error)
        assert not run.events(ev.TaskRerouted)
