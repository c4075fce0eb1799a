"""Wrong input is refused before anything is started, with a sentence that says what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from parsl.executors import ThreadPoolExecutor

from diaspora_parsl import Endpoint, ResilientPoolExecutor
from diaspora_parsl.errors import ConfigurationError, FabricURLError

# An unreachable Redis is no wrong input: see test_fabric_dies.py.


def threads(label: str = "a", **options: Any) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(label=label, max_threads=1, **options)


def started() -> ThreadPoolExecutor:
    executor = threads()
    executor.start()
    executor.shutdown()
    return executor


def pool(*endpoints: Any, **options: Any) -> ResilientPoolExecutor:
    return ResilientPoolExecutor(label="pool", endpoints=endpoints, **options)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (pool, "A pool needs at least one endpoint: endpoints=["),
        (lambda: ResilientPoolExecutor(endpoints=5), "endpoints must be a list: endpoints=["),  # type: ignore[arg-type]
        (lambda: pool(threads("a"), threads("a"), threads("b")), "Several endpoints are labelled 'a'"),
        (
            lambda: pool(threads("a"), Endpoint(lambda: threads("a"), label="a")),
            "give each executor a label of its own",
        ),
        (lambda: pool(started()), "Executor 'a' is already started. Give the pool a new one"),
        (lambda: pool(Endpoint(started, label="a")), "makes an executor that is started"),
        (lambda: pool(Endpoint(lambda: threads("b"), label="a")), "Use one label for both"),
        (lambda: pool(Endpoint(lambda: 5, label="a")), "made 5, not a ParslExecutor"),  # type: ignore[arg-type,return-value]
        (lambda: pool(5), "not 5. Write Endpoint(HighThroughputExecutor(label="),
        (lambda: pool(ThreadPoolExecutor), "Write Endpoint(HighThroughputExecutor(label="),
        (lambda: Endpoint(threads), 'A factory needs a label: Endpoint(lambda: MyExecutor(...), label="gamma")'),
        (lambda: Endpoint(threads("a"), label="b"), "Give one label only"),
        (lambda: Endpoint(threads("a b")), "cannot be labelled 'a b'. Use letters, digits"),
        (lambda: Endpoint(threads("_parsl_internal")), "cannot be labelled '_parsl_internal'"),
        (lambda: Endpoint(threads(), tags="gpu"), 'Write tags={"gpu"}'),
        (lambda: Endpoint(threads(), max_concurrency=0), "it must be a whole number from 1 up"),
        (lambda: Endpoint(threads(), mem_per_worker=0), "the GB of memory per worker, such as mem_per_worker=4"),
        (lambda: pool(threads(), failure_rules=["OSError"]), "give a list of Rule"),
        (
            lambda: Endpoint(threads(), heartbeat_period=4, detection_time=4),
            "detection_time above heartbeat_period, such as heartbeat_period=1",
        ),
        (lambda: pool(threads(), strategy="clever"), 'write "none", "simple" or "htex_auto_scale"'),
        (lambda: pool(threads(), unavailable_timeout=0), "unavailable_timeout (seconds) must be above 0"),
        (lambda: pool(threads(), max_attempts=0), "max_attempts at least 1"),
        (lambda: pool(threads(), fabric=7), 'fabric=7: write "embedded", a URL such as'),
        (
            lambda: pool(threads("a", working_dir="/x"), threads("b", working_dir="/y")),
            "give ResilientPoolExecutor(working_dir=...)",
        ),
        (
            lambda: pool(threads("a", storage_access=[]), ThreadPoolExecutor(label="b", storage_access=_staging())),
            "give ResilientPoolExecutor(storage_access=[...])",
        ),
        (lambda: pool(threads(), shared_filesystem=False, storage_access=_separate()), "use HTTPInTaskStaging"),
    ],
)
def test_it_is_refused_with_a_sentence(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert sentence in str(caught.value)


@pytest.mark.parametrize("fabric", ["", "rediss", "kafak://host", "host:6379", "redis://:s3cret@h:x/0"])
def test_a_fabric_that_nobody_can_open(fabric: str) -> None:
    with pytest.raises(FabricURLError, match=r"[Ww]rite") as caught:
        pool(threads(), fabric=fabric)
    assert "s3cret" not in str(caught.value)


def _staging() -> list[Any]:
    from parsl.data_provider.file_noop import NoOpFileStaging  # noqa: PLC0415

    return [NoOpFileStaging()]


def _separate() -> list[Any]:
    from parsl.data_provider.http import HTTPSeparateTaskStaging  # noqa: PLC0415

    return [HTTPSeparateTaskStaging()]
