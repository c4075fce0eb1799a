"""Every recorded stimulus log is answered by a fresh core with exactly the recorded actions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diaspora_parsl.core.failures import FailureAction, Kind
from tests.stimulus_logs import replay
from tests.stimulus_logs.codec import ACTIONS, STIMULI, Log, archives, dumps, read, write

ARCHIVES = archives()


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.name.partition(".")[0])
def test_every_action_is_as_recorded(archive: Path) -> None:
    differences = [str(found) for log in read(archive) if (found := replay.first_difference(log)) is not None]
    assert not differences, f"{len(differences)} logs are answered otherwise; the first:\n{differences[0]}"


def test_the_logs_hold_every_stimulus_and_every_action() -> None:
    logs = [log for archive in ARCHIVES for log in read(archive)]
    assert len({log.name for log in logs}) == len(logs) >= 200
    assert len({tuple(log.steps) for log in logs}) == len(logs)
    stimuli, actions, enums = set[str](), set[str](), set[tuple[str, str]]()
    for log in logs:
        for line in log.steps:
            stimulus, answer = json.loads(line)
            stimuli.add(stimulus["type"])
            actions.update(action["type"] for action in answer)
            failure = stimulus.get("failure", {})
            enums.update((part["type"], part["value"]) for part in failure.values() if isinstance(part, dict))
    assert stimuli == {cls.__name__ for cls in STIMULI}
    assert actions == {cls.__name__ for cls in ACTIONS}
    assert {value for name, value in enums if name == "Kind"} == set(Kind)
    assert {value for name, value in enums if name == "FailureAction"} == set(FailureAction)


# --- the comparison itself ----------------------------------------------------------------------------------------


def some_log() -> Log:
    """The first log with an error that the pool gives."""
    return next(log for archive in ARCHIVES for log in read(archive) if any('"verdict"' in line for line in log.steps))


def changed(data: Any, name: str, value: Any) -> bool:
    """Set the first field of this name in encoded actions; whether there is one."""
    if isinstance(data, list):
        return any(changed(item, name, value) for item in data)
    if not isinstance(data, dict):
        return False
    if name in data:
        data[name] = value
        return True
    return any(changed(item, name, value) for item in data.values())


def with_another(name: str, value: Any) -> tuple[Log, int]:
    """A log that expects something else in one field, and the step where it does."""
    log = some_log()
    for index, line in enumerate(log.steps):
        stimulus, actions = json.loads(line)
        if changed(actions, name, value):
            log.steps[index] = dumps([stimulus, actions])
            return log, index
    raise AssertionError(f"no action has a field {name}")


@pytest.fixture
def archive_of(tmp_path: Path) -> Iterator[Path]:
    return_to = tmp_path / "one.jsonl.xz"
    yield return_to
    assert list(tmp_path.iterdir()) == [return_to]


@pytest.mark.parametrize(("name", "value"), [("attempt", 10**6), ("at", 1e9), ("reason", "no reason"), ("kind", "odd")])
def test_another_answer_is_found(name: str, value: object) -> None:
    log, index = with_another(name, value)
    difference = replay.first_difference(log)
    assert difference is not None
    assert difference.index == index
    assert f"{log.name}, step {index}:" in str(difference)
    assert f'"{name}": {json.dumps(value)}' in str(difference)


@pytest.mark.parametrize("name", ["reason", "text", "message"])
def test_new_sentences_are_written(archive_of: Path, name: str) -> None:
    log, _ = with_another(name, "an old sentence")
    write(archive_of, [log])
    assert replay.update([archive_of]) == 0
    (updated,) = read(archive_of)
    assert updated == some_log()


@pytest.mark.parametrize(
    ("name", "value"), [("attempt", 10**6), ("at", 1e9), ("type", "Revoke"), ("error", "OddError")]
)
def test_nothing_else_is_written(
    archive_of: Path, name: str, value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    log, index = with_another(name, value)
    write(archive_of, [log])
    before = archive_of.read_bytes()
    assert replay.update([archive_of]) == 1
    assert archive_of.read_bytes() == before
    assert f"{log.name}, step {index}:" in capsys.readouterr().err
