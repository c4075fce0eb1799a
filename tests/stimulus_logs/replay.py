"""Replays stimulus logs through fresh cores, and compares every action with the recorded one.

Run ``python -m tests.stimulus_logs.replay`` from the root of the repository. With ``--update-texts`` it writes the
sentences that the core says now into the archives. It refuses if anything else differs.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from diaspora_parsl.core.machine import PoolCore
from tests.stimulus_logs.codec import FOLDER, Log, archives, decode, dumps, encode, read, write

#: Fields of actions, and of what they hold, that are sentences for humans.
TEXTS: Final = frozenset({"reason", "message", "text"})


@dataclass(frozen=True)
class Difference:
    """The first stimulus of a log that is answered otherwise than recorded."""

    log: str
    index: int
    stimulus: dict[str, Any]
    expected: list[Any]
    got: list[Any]

    def __str__(self) -> str:
        diff = difflib.ndiff(_pretty(self.expected), _pretty(self.got))
        return "\n".join(
            (f"{self.log}, step {self.index}:", f"  stimulus {dumps(self.stimulus)}", "  - expected, + got:", *diff)
        )


def _pretty(actions: list[Any]) -> list[str]:
    return [line for action in actions for line in json.dumps(action, indent=1, sort_keys=True).splitlines()]


def answers(log: Log) -> Iterator[str]:
    """What a fresh core says: each line of the log as it would be recorded now."""
    core = PoolCore([decode(spec) for spec in log.endpoints], decode(log.settings))
    for line in log.steps:
        stimulus = decode(json.loads(line)[0])
        yield dumps([encode(stimulus), encode(tuple(core.handle(stimulus)))])


def first_difference(log: Log) -> Difference | None:
    """Where the core first answers otherwise than recorded; None if it never does.

    Raises:
        ValueError: a stimulus of the log is not what it was recorded as, once decoded.
    """
    for index, (line, answer) in enumerate(zip(log.steps, answers(log), strict=True)):
        if line == answer:
            continue
        difference = _difference(log.name, index, line, answer)
        if difference is not None:
            return difference
    return None


def _difference(name: str, index: int, line: str, answer: str) -> Difference | None:
    (told, expected), (stimulus, got) = json.loads(line), json.loads(answer)
    if dumps(told) != dumps(stimulus):
        raise ValueError(f"{name}, step {index}: the stimulus {dumps(told)} is decoded as {dumps(stimulus)}")
    return Difference(name, index, told, expected, got) if dumps(expected) != dumps(got) else None


# --- new sentences ------------------------------------------------------------------------------------------------


def with_new_texts(log: Log) -> tuple[Log, int]:
    """The log with the sentences that the core says now, and how many steps have others.

    Raises:
        OtherDifferenceError: not only sentences differ.
    """
    steps, changed = [], 0
    for index, (line, answer) in enumerate(zip(log.steps, answers(log), strict=True)):
        if line != answer and (difference := _difference(log.name, index, line, answer)) is not None:
            if dumps(without_texts(difference.expected)) != dumps(without_texts(difference.got)):
                raise OtherDifferenceError(difference)
            changed += 1
        steps.append(answer)
    return replace(log, steps=steps), changed


class OtherDifferenceError(Exception):
    """More than sentences differs."""


def without_texts(data: Any) -> Any:
    """Encoded actions without the sentences in them."""
    if isinstance(data, list):
        return [without_texts(item) for item in data]
    if isinstance(data, dict):
        return {name: without_texts(item) for name, item in data.items() if name not in TEXTS}
    return data


# --- the command --------------------------------------------------------------------------------------------------


def update(paths: list[Path]) -> int:
    """Write new sentences into these archives, into all of them or into none; return the exit code."""
    written: list[tuple[Path, list[Log]]] = []
    for archive in paths:
        logs, changed = [], 0
        for log in read(archive):
            try:
                new, count = with_new_texts(log)
            except OtherDifferenceError as error:
                sys.stderr.write(f"Not only sentences differ; no archive is changed.\n{archive.name}: {error}\n")
                return 1
            logs.append(new)
            changed += count
        sys.stdout.write(f"{archive.name}: {len(logs)} logs, {changed} steps with other sentences\n")
        if changed:
            written.append((archive, logs))
    for archive, logs in written:
        write(archive, logs)
    return 0


def compare(paths: list[Path]) -> int:
    """Replay these archives; return the exit code."""
    differences = 0
    for archive in paths:
        logs = steps = 0
        for log in read(archive):
            logs, steps = logs + 1, steps + len(log.steps)
            difference = first_difference(log)
            if difference is not None:
                differences += 1
                sys.stdout.write(f"{archive.name}: {difference}\n")
        sys.stdout.write(f"{archive.name}: {logs} logs, {steps} stimuli\n")
    return 1 if differences else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Replay stimulus logs and compare every action.")
    parser.add_argument("archives", nargs="*", type=Path, help="default: all beside this module")
    parser.add_argument("--update-texts", action="store_true", help="write new sentences, and refuse anything else")
    given = parser.parse_args()
    paths = given.archives or archives(FOLDER)
    return update(paths) if given.update_texts else compare(paths)


if __name__ == "__main__":
    sys.exit(main())
