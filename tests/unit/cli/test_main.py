"""The command line: what it says, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from diaspora_parsl import __version__
from diaspora_parsl.cli import main

COMMANDS = ("agent", "watch", "events", "exporter", "screen", "demo", "simulate-globus")


def outcome(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["diaspora-parsl", *arguments])
    with pytest.raises(SystemExit) as end:
        main.main()
    return end.value.code if isinstance(end.value.code, int) else 0


def test_help_lists_every_command_with_its_purpose() -> None:
    result = CliRunner().invoke(main.app, ["--help"])
    assert result.exit_code == 0
    for command in COMMANDS:
        (line,) = [line for line in result.stdout.splitlines() if line.split()[:1] == [command]]
        assert len(line.split()) > 3


@pytest.mark.parametrize("command", ["agent", "watch", "events", "exporter", "simulate-globus"])
def test_help_teaches_by_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert outcome(monkeypatch, command, "--help") == 0
    assert f"  diaspora-parsl {command} " in capsys.readouterr().out


def test_the_schema_of_events_is_printed_without_a_fabric() -> None:
    result = CliRunner().invoke(main.app, ["events", "--schema"])
    assert result.exit_code == 0
    assert "TaskRerouted" in json.loads(result.stdout)["$defs"]


def test_version() -> None:
    result = CliRunner().invoke(main.app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"diaspora-parsl {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["events", "--since", "yesterday"], "Write 90s, 5m"),
        (["events", "--fabric", "memory://x"], "of this process alone"),
        (["events", "--fabric", "redis://x", "--run-dir", "y"], "give one of them"),
        (["events", "--fabric", "pigeon://x"], "no known scheme"),
        (["watch", "--once", "--run-dir", "no/such/run"], "no/such/run"),
        (["agent", "--endpoint", ""], "--endpoint LABEL"),
        (["agent", "--endpoint", "a", "--interval", "0"], "between"),
        (["agent", "--endpoint", "a", "--parent", "1", "--no-parent"], "give one of them"),
        (["agent"], "--endpoint"),
        (["simulate-globus", "--endpoints", "0"], "'--endpoints'"),
        (["simulate-globus", "--faults", "no/such/script"], "does not exist"),
        (["simulate-globus", "--faults", __file__], "not a fault script"),
        (["dance"], "dance"),
    ],
)
def test_what_cannot_work_is_a_sentence_and_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert outcome(monkeypatch, *arguments) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("command", ["screen", "demo"])
def test_without_the_extra_campaigns_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.setitem(sys.modules, "diaspora_parsl.cli.screen", None)
    assert outcome(monkeypatch, command, "--anything", "goes") == 2
    assert "pip install 'diaspora-parsl[campaigns]'" in capsys.readouterr().err


def test_an_agent_loads_nothing_it_does_not_need() -> None:
    code = (
        "import sys, diaspora_parsl.cli.main, diaspora_parsl.cli.agent; "
        "import diaspora_parsl.fabric.transports.redis.embedded; "
        "print([name for name in ('parsl', 'rdkit', 'numpy', 'pydantic', 'rich.live') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(("option", "holds"), [("--dashboard", '"panels"'), ("--alerts", "alert: ")])
def test_the_exporter_prints_what_belongs_to_its_metrics(option: str, holds: str) -> None:
    result = CliRunner().invoke(main.app, ["exporter", option])
    assert result.exit_code == 0
    assert holds in result.stdout


def test_an_exporter_without_its_packages_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("diaspora_parsl.monitors.exporter")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert outcome(monkeypatch, "exporter", "--fabric", "redis://127.0.0.1:1/0") == 2
    assert "pip install 'diaspora-parsl[exporter]'" in capsys.readouterr().err
