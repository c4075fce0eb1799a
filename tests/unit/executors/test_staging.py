from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from parsl.data_provider.file_noop import NoOpFileStaging
from parsl.data_provider.files import File
from parsl.data_provider.http import HTTPInTaskStaging, HTTPSeparateTaskStaging
from parsl.data_provider.zip import ZipFileStaging
from parsl.executors import ThreadPoolExecutor

from diaspora_parsl import ResilientPoolExecutor
from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.executors.staging import RefusedStaging, storage_of_pool, working_dir_of_pool

SENTENCE = "has no shared file system, and the endpoint that will run the task is not known yet"


def member(label: str, access: Any = None, working_dir: str | None = None) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(label=label, storage_access=access, working_dir=working_dir)


def kinds(providers: Any) -> list[str] | None:
    return None if providers is None else [type(provider).__name__ for provider in providers]


@pytest.mark.parametrize(
    ("own", "given", "shared", "chosen"),
    [
        ([None, None], None, True, None),
        ([None, [ZipFileStaging()]], None, True, ["ZipFileStaging"]),
        ([[NoOpFileStaging()], [NoOpFileStaging()]], None, True, ["NoOpFileStaging"]),
        ([[NoOpFileStaging()], [ZipFileStaging()]], [HTTPInTaskStaging()], True, ["HTTPInTaskStaging"]),
        ([None], [HTTPSeparateTaskStaging()], True, ["HTTPSeparateTaskStaging"]),
        ([None], None, False, ["HTTPInTaskStaging", "FTPInTaskStaging", "RefusedStaging"]),
        ([[NoOpFileStaging()]], None, False, ["NoOpFileStaging", "RefusedStaging"]),
    ],
)
def test_the_rule_of_storage_access(own: list[Any], given: Any, shared: bool, chosen: Any) -> None:  # noqa: FBT001
    members = [member(f"e{number}", access) for number, access in enumerate(own)]
    assert kinds(storage_of_pool(members, given, shared_filesystem=shared)) == chosen


@pytest.mark.parametrize(
    ("own", "given", "chosen"),
    [(["/x", "/x"], None, "/x"), ([None, "/x"], None, "/x"), (["/x", "/y"], "/z", "/z"), ([None, None], None, None)],
)
def test_the_rule_of_working_dir(own: list[str | None], given: str | None, chosen: str | None) -> None:
    members = [member(f"e{number}", None, directory) for number, directory in enumerate(own)]
    assert working_dir_of_pool(members, given) == chosen


def test_without_a_shared_file_system_a_file_is_refused_with_a_sentence() -> None:
    provider = RefusedStaging()
    file = File("file:///data/x")
    refusals: list[Callable[[], object]] = [
        lambda: provider.stage_in(None, "pool", file, None),
        lambda: provider.stage_out(None, "pool", file, None),  # type: ignore[arg-type]  # never looked at
    ]
    for refuse in refusals:
        with pytest.raises(ConfigurationError, match=SENTENCE) as caught:
            refuse()
        assert "file:///data/x cannot be staged. Use http://" in str(caught.value)


def test_parsl_asks_it_last() -> None:
    pool = ResilientPoolExecutor(label="pool", endpoints=[member("a")], shared_filesystem=False)
    assert pool.storage_access is not None
    takes = [provider for provider in pool.storage_access if provider.can_stage_in(File("http://host/x"))]
    assert isinstance(takes[0], HTTPInTaskStaging)
    takes = [provider for provider in pool.storage_access if provider.can_stage_in(File("/data/x"))]
    assert isinstance(takes[0], RefusedStaging)
