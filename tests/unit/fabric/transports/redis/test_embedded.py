"""Unit tests of the embedded server: its life, its address, its data."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from diaspora_parsl.errors import ConfigurationError, FabricUnavailableError, FabricURLError
from diaspora_parsl.fabric.base import open_fabric
from diaspora_parsl.fabric.transports.redis import embedded_server as server_module
from diaspora_parsl.fabric.transports.redis.embedded import EmbeddedFabric, find_fabric
from diaspora_parsl.fabric.transports.redis.embedded_server import find_server, free_port


def opened(run_dir: Path, url: str = "embedded") -> EmbeddedFabric:
    fabric = open_fabric(url, run_dir)
    assert isinstance(fabric, EmbeddedFabric)
    return fabric


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def fabric(tmp_path: Path) -> Iterator[EmbeddedFabric]:
    made = opened(tmp_path)
    yield made
    made.close()


def test_files_and_command_line_are_private(fabric: EmbeddedFabric, tmp_path: Path) -> None:
    password = fabric.url.split(":")[2].partition("@")[0]
    assert len(password) > 20
    for name in ("fabric.json", "fabric/server.conf"):
        assert (tmp_path / name).stat().st_mode & 0o077 == 0
    assert (tmp_path / "fabric").stat().st_mode & 0o077 == 0
    for process in psutil.Process().children(recursive=True):
        assert password not in " ".join(process.cmdline())
    record = json.loads((tmp_path / "fabric.json").read_text())
    assert record["url"] == fabric.url
    assert record["pid"] == os.getpid()
    assert time.time() - record["started"] < 60
    assert "bind 127.0.0.1\n" in (tmp_path / "fabric/server.conf").read_text()


def test_a_wrong_password_is_refused(fabric: EmbeddedFabric) -> None:
    port = fabric.url.rpartition(":")[2]
    stranger = open_fabric(f"redis://127.0.0.1:{port}")
    with pytest.raises(FabricUnavailableError, match="refuses"):
        stranger.subscribe(["t"])
    stranger.close()


def test_closing_ends_it_and_the_data_can_be_opened_again(tmp_path: Path, tools: Any) -> None:
    fabric = opened(tmp_path)
    pid = fabric.server_pid
    assert pid
    sent = tools.events(100)
    fabric.publish(sent)
    started = time.monotonic()
    fabric.close()
    fabric.close()
    assert time.monotonic() - started < 3
    assert not is_running(pid)
    record = json.loads((tmp_path / "fabric.json").read_text())
    assert "url" not in record
    assert record["ended"] >= record["started"]

    (tmp_path / "fabric/lock").chmod(0o400)
    one, two = opened(Path("/"), find_fabric(tmp_path)), opened(Path("/"), f"embedded://{tmp_path}")
    assert tools.everything(one) == tools.everything(two) == sent
    two.publish(tools.events(1))
    one.close()
    assert len(tools.everything(two)) == 101
    two.close()
    (tmp_path / "fabric/lock").chmod(0o600)

    resumed = opened(tmp_path)  # the next process of the same run goes on with the data; the lookers left no trace
    assert tools.everything(resumed) == sent
    resumed.close()


def test_a_run_dir_with_an_awkward_name(tmp_path: Path, tools: Any) -> None:
    run_dir = tmp_path / 'a "quoted" \\ dir with ünïcode % and ?'
    fabric = opened(run_dir)
    sent = tools.events(1)
    fabric.publish(sent)
    fabric.close()
    again = opened(tmp_path, find_fabric(run_dir))
    assert tools.everything(again) == sent
    again.close()


def test_it_is_shared_in_the_process(fabric: EmbeddedFabric, tmp_path: Path, tools: Any) -> None:
    second = opened(tmp_path)
    third = opened(Path("/"), f"embedded://{tmp_path}")
    assert fabric.url == second.url == third.url
    fabric.close()
    second.publish(tools.events(1))
    second.close()
    third.publish(tools.events(1))
    assert len(tools.everything(third)) == 2
    third.close()


_OPEN_AND_SAY = """
import sys, time
from diaspora_parsl.fabric.base import open_fabric
fabric = open_fabric("embedded", sys.argv[1])
print(fabric.url, fabric.server_pid, flush=True)
{then}
"""


def start(run_dir: Path, then: str = "time.sleep(60)") -> tuple[subprocess.Popen[str], str, str]:
    child = subprocess.Popen(
        [sys.executable, "-c", _OPEN_AND_SAY.format(then=then), run_dir], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout
    url, _, pid = child.stdout.readline().strip().partition(" ")
    return child, url, pid


def end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.wait(10)
    assert child.stdout
    child.stdout.close()


def test_another_process_shares_it(fabric: EmbeddedFabric, tmp_path: Path) -> None:
    child, url, pid = start(tmp_path)
    assert (url, pid) == (fabric.url, "None")
    end(child)
    assert is_running(fabric.server_pid or 0)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_dies_with_its_owner(number: signal.Signals, tmp_path: Path, tools: Any) -> None:
    child, url, pid = start(tmp_path, "import signal; signal.signal(2, signal.SIG_DFL); time.sleep(60)")
    live = open_fabric(url)
    sent = tools.events(10)
    live.publish(sent)
    live.close()
    supervisor = psutil.Process(int(pid)).ppid()
    time.sleep(0.05)
    child.send_signal(number)
    child.wait(10)
    tools.wait_for(lambda: not is_running(int(pid)) and not is_running(supervisor), 5)
    end(child)
    assert "url" not in json.loads((tmp_path / "fabric.json").read_text())
    again = opened(tmp_path, find_fabric(tmp_path))
    assert tools.everything(again) == sent
    again.close()


def test_a_forked_child_of_a_killed_owner_does_not_keep_it(tmp_path: Path, tools: Any) -> None:
    then = """
import os, signal
child = os.fork()
if child == 0:
    fabric.close()
    time.sleep(60)
print(child, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    owner, _, pid = start(tmp_path, then)
    assert owner.stdout
    orphan = int(owner.stdout.readline())
    try:
        tools.wait_for(lambda: not is_running(int(pid)), 5)
        assert is_running(orphan)
    finally:
        os.kill(orphan, signal.SIGKILL)
        end(owner)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12 on: fork with threads
def test_a_fork_does_not_end_it(fabric: EmbeddedFabric, tools: Any) -> None:
    child = os.fork()
    if child == 0:
        fabric.publish(tools.events(1))
        fabric.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    fabric.publish(tools.events(1))
    assert len(tools.everything(fabric)) == 2


def test_a_thread_that_opened_it_may_end(tmp_path: Path, tools: Any) -> None:
    made: list[EmbeddedFabric] = []
    thread = threading.Thread(target=lambda: made.append(opened(tmp_path)))
    thread.start()
    thread.join()
    time.sleep(0.2)
    made[0].publish(tools.events(1))
    made[0].close()


def test_closing_a_stopped_server_is_bounded(tmp_path: Path) -> None:
    fabric = opened(tmp_path)
    pid = fabric.server_pid
    assert pid
    os.kill(pid, signal.SIGSTOP)
    started = time.monotonic()
    fabric.close()
    assert time.monotonic() - started < 3
    assert not is_running(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal is a thing of Linux")
def test_a_killed_supervisor_takes_the_server_along(tmp_path: Path, tools: Any) -> None:
    fabric = opened(tmp_path)
    pid = fabric.server_pid
    assert pid
    psutil.Process(pid).parent().kill()  # type: ignore[union-attr]  # it has a parent
    tools.wait_for(lambda: not is_running(pid))
    fabric.close()


def test_a_taken_port_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fabric: EmbeddedFabric) -> None:
    taken = int(fabric.url.rpartition(":")[2].partition("/")[0])
    ports = [taken, free_port()]
    monkeypatch.setattr(server_module, "free_port", lambda _: ports.pop(0))
    other = opened(tmp_path / "other")
    assert other.url != fabric.url
    assert ports == []
    other.close()


def test_a_server_that_never_starts_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "fake-server"
    fake.write_text("#!/bin/sh\necho no such luck >&2\nexit 1\n")
    fake.chmod(0o700)
    monkeypatch.setattr(server_module, "find_server", lambda: fake)
    with pytest.raises(FabricUnavailableError, match="no such luck"):
        opened(tmp_path / "run")


def test_a_run_dir_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FabricUnavailableError, match="cannot keep its data"):
        opened(tmp_path / "file")


def test_find_server_prefers_what_is_newer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundled = find_server()
    for version, chosen in (("v=7.2.4", bundled), ("v=99.0.0", tmp_path / "valkey-server"), ("nonsense", bundled)):
        (tmp_path / "valkey-server").write_text(f"#!/bin/sh\necho Valkey server {version}\n")
        (tmp_path / "valkey-server").chmod(0o700)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        assert find_server() == chosen
    monkeypatch.setattr(server_module, "_bundled", lambda: None)
    (tmp_path / "valkey-server").write_text("#!/bin/sh\necho Valkey server v=7.2.4\n")
    assert find_server() == tmp_path / "valkey-server"
    (tmp_path / "valkey-server").write_text("#!/bin/sh\necho Redis server v=5.0.7\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="Install"):
        find_server()


def test_find_fabric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tools: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DIASPORA_PARSL_FABRIC", raising=False)
    with pytest.raises(FabricURLError, match="DIASPORA_PARSL_FABRIC is not set"):
        find_fabric()
    with pytest.raises(FabricURLError, match="holds no fabric"):
        find_fabric(tmp_path)

    live = opened(tmp_path / "runinfo/000")
    for run in ("001", "002"):  # newer, but ended
        ended = opened(tmp_path / "runinfo" / run)
        ended.publish(tools.events(1))
        ended.close()
    assert find_fabric() == live.url
    assert find_fabric("runinfo/000/fabric.json") == live.url
    assert find_fabric("runinfo/001") == f"embedded://{tmp_path}/runinfo/001"
    monkeypatch.setenv("DIASPORA_PARSL_FABRIC", "redis://elsewhere")
    assert find_fabric() == "redis://elsewhere"
    assert find_fabric("runinfo/000") == live.url
    monkeypatch.delenv("DIASPORA_PARSL_FABRIC")
    live.close()
    os.utime(tmp_path / "runinfo/000/fabric.json", (1, 1))
    os.utime(tmp_path / "runinfo/001/fabric.json", (2, 2))
    assert find_fabric() == f"embedded://{tmp_path}/runinfo/002"
    shutil.rmtree(tmp_path / "runinfo/002")
    assert find_fabric() == f"embedded://{tmp_path}/runinfo/001"


def test_find_fabric_of_another_host_says_which(tmp_path: Path) -> None:
    url = f"redis://:{secrets.token_hex(4)}@127.0.0.1:{free_port()}/0"
    (tmp_path / "fabric.json").write_text(json.dumps({"url": url, "host": "login7", "pid": 1}))
    with pytest.raises(FabricURLError, match="host login7") as caught:
        find_fabric(tmp_path)
    assert url not in str(caught.value)
