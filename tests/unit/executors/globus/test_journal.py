"""What is in flight is on disk, and is claimed once after a crash."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.executors.globus.function_ids import PerFunction
from diaspora_parsl.executors.globus.journal import Journal, journal_at

CRASH = """
import os, signal, sys
from diaspora_parsl.executors.globus.journal import Journal
from pathlib import Path
journal = Journal(Path(sys.argv[1]))
journal.sent([("t1", "twice"), ("t2", "twice"), ("t3", "done"), ("t4", "once")])
journal.came_back("t3")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_in_flight_when_it_was_killed_is_claimed_once(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "journal.sqlite"
    ended = subprocess.run([sys.executable, "-c", CRASH, str(path)], check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    journal = Journal(path)
    assert journal.claim("done") is None
    assert [journal.claim("twice") for _ in range(3)] == ["t1", "t2", None]
    assert journal.claim("once") == "t4"
    journal.came_back("t4")
    assert Journal(path).claim("once") is None
    assert Journal(path).claim("twice") == "t1", "it has not come back yet"


def test_a_digest_knows_its_parts() -> None:
    assert Journal.digest("a", "bc") == Journal.digest("a", "bc")
    assert Journal.digest("a", "bc") != Journal.digest("ab", "c")


def test_endpoints_share_it(tmp_path: Path) -> None:
    first = journal_at(tmp_path / "j")
    assert journal_at(str(tmp_path / "j")) is first


def test_what_is_no_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(b"something else" * 100)
    with pytest.raises(ConfigurationError, match="Give a file of its own"):
        Journal(path)
    assert os.path.getsize(path) == 1400  # noqa: PTH202 - its content is left alone


def test_a_text_is_found_out_once_for_each_function() -> None:
    texts, asked = PerFunction(), []

    def find_out(function: object) -> str:
        asked.append(function)
        return f"text {len(asked)}"

    def one() -> None: ...

    assert [texts.of(one, find_out), texts.of(one, find_out), texts.of(max, find_out)] == ["text 1", "text 1", "text 2"]
    asked.clear()
    del one
    gc.collect()
    assert len(texts._known) == 1
