from __future__ import annotations

import subprocess
import sys

from diaspora_parsl.executors.runtime.exit_watch import ExitWatch

SCRIPT = """
import threading, time
from diaspora_parsl.executors.runtime.exit_watch import ExitWatch

def end():
    thread = threading.Thread(target=print, args=("ended by a thread",), kwargs={"flush": True})
    thread.start()
    thread.join()

def work():
    time.sleep(1.5)
    print("worked", flush=True)

ExitWatch("one", end).start()
ExitWatch("two", lambda: print("ended too", flush=True)).start()
threading.Thread(target=work).start()
print("main is done", flush=True)
"""


def test_it_waits_for_everything_but_its_like() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=30, check=True)
    said = done.stdout.splitlines()
    assert said[:2] == ["main is done", "worked"]
    assert sorted(said[2:]) == ["ended by a thread", "ended too"]
    assert done.stderr == ""


def test_cancelled_it_ends_nothing() -> None:
    called: list[int] = []
    watch = ExitWatch("test", lambda: called.append(1))
    watch.start()
    watch.cancel()
    watch.join(10)
    assert not watch.is_alive()
    assert not called
