"""The record of a run: its address and its key, for its owner alone."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING

from diaspora_parsl.fabric.address import KEY_VARIABLE, find_key, make_key, read_record, write_record

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

URL = "redis://:secret@127.0.0.1:1/0"


def test_the_record_is_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    (tmp_path / "fabric.json").write_text("{}")
    (tmp_path / "fabric.json").chmod(0o666)
    path = write_record(tmp_path, URL)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key = make_key(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(key) == 64
    assert json.loads(path.read_text()) | {"url": URL, "key": key} == json.loads(path.read_text())


def test_a_run_has_one_key_whoever_writes_its_address_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    key = make_key(tmp_path)
    write_record(tmp_path, URL)
    assert make_key(tmp_path) == key == read_record(tmp_path)["key"]
    assert find_key("", tmp_path) == key == find_key("", tmp_path / "fabric.json")
    assert make_key(tmp_path.parent) != key


def test_the_environment_decides_and_is_what_commands_without_a_run_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "runinfo" / "000"
    run.mkdir(parents=True)
    write_record(run, URL)
    monkeypatch.setenv(KEY_VARIABLE, "shared")
    assert make_key(run) == "shared" == find_key("", run)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(KEY_VARIABLE)
    assert find_key(URL) == "shared"  # by the address of a run below here
    assert find_key("redis://elsewhere:1/0") == ""
    monkeypatch.setenv(KEY_VARIABLE, "other")
    assert find_key("redis://elsewhere:1/0") == "other"


def test_a_run_that_cannot_keep_its_key_has_one_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    assert make_key(tmp_path / "missing")
    assert find_key("", tmp_path / "missing") == ""
