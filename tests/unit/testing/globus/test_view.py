from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from diaspora_parsl.testing.faults import Kill, LoseBroker
from diaspora_parsl.testing.globus import LocalGlobusCompute
from diaspora_parsl.testing.globus.view import introduction, line, table

if TYPE_CHECKING:
    from diaspora_parsl.testing.globus import EmulatedEndpoint
    from tests.unit.testing.globus.rest import Rest


def test_what_is_to_be_pasted_works(service: LocalGlobusCompute) -> None:
    endpoint = service.endpoint("my endpoint")
    shell, _, python = introduction(service).partition("\n\n")
    assert shell.splitlines() == [f"export GLOBUS_COMPUTE_URL={service.url}", f"export MY_ENDPOINT={endpoint.id}"]
    done = subprocess.run([sys.executable, "-c", python], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "1024\n"


def test_at_its_own_port_the_sdk_needs_no_help(service: LocalGlobusCompute, monkeypatch: pytest.MonkeyPatch) -> None:
    service.endpoint("alpha")
    monkeypatch.setattr(type(service), "url", "http://127.0.0.1:5000")
    assert "Client(local_compute_services=True" in introduction(service)
    compile(introduction(service).partition("\n\n")[2], "pasted", "exec")


def test_how_it_goes(rest: Rest, service: LocalGlobusCompute, alpha: EmulatedEndpoint) -> None:
    rest.done(rest.submit(alpha, len, "abc")[0])
    assert line(service).startswith("alpha online 2/2 idle; ")
    assert line(service).endswith("tasks: 1 success")
    alpha.begin(Kill(at=0.0, endpoint="alpha", until=1.0))
    alpha.begin(LoseBroker(at=0.0, until=1.0))
    assert line(service).startswith("alpha offline 0/0 idle (Kill, LoseBroker); ")
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table(service))
    (row,) = [row for row in capture.get().splitlines() if "alpha" in row]
    assert row.replace("│", "").split() == ["alpha", "offline", "0", "0", "0", "0", "Kill,", "LoseBroker"]
