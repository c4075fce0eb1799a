from __future__ import annotations

import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from diaspora_parsl.cli import main
from diaspora_parsl.cli.bridge import attend, line
from diaspora_parsl.cli.signals import StopSignals
from diaspora_parsl.errors import FabricURLError
from diaspora_parsl.fabric.bridge.bridge import Bridge
from diaspora_parsl.fabric.bridge.config import EXAMPLE, BridgeConfig
from diaspora_parsl.fabric.bridge.link import LinkStats
from diaspora_parsl.fabric.transports import memory

SITE = """
home = "anl"
state = "state"
[fabrics.anl]
url = "memory://cli-anl"
[fabrics.cloud]
url = "memory://cli-cloud"
[[links]]
from = "anl"
to = "cloud"
"""


@pytest.fixture
def site(tmp_path: Path) -> str:
    (tmp_path / "site.toml").write_text(SITE, encoding="utf-8")
    return str(tmp_path / "site.toml")


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main.app, ["bridge", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_help_teaches() -> None:
    _, said, _ = run("--help")
    for word in ("--example > site.toml", "--check", "--until-idle", "lose nothing", "SIGTERM"):
        assert word in said


def test_the_example_is_printed_as_it_is() -> None:
    assert run("--example") == (0, EXAMPLE, "")


def test_check_says_what_it_would_do_and_does_nothing(site: str) -> None:
    code, _, said = run(site, "--check")
    assert code == 0
    assert "anl (memory://cli-anl) to cloud (memory://cli-cloud): parsl-task, parsl-endpoint, parsl-resource" in said
    assert not (Path(site).parent / "state").exists()


def test_check_finds_an_address_that_nobody_can_open(site: str) -> None:
    Path(site).write_text(SITE.replace("memory://cli-cloud", "redsi://cloud:6379/0"), encoding="utf-8")
    with pytest.raises(FabricURLError, match="no known scheme"):
        run(site, "--check")


def test_until_idle_ends_when_everything_is_through(site: str) -> None:
    code, _, said = run(site, "--until-idle", "--limit", "20")
    assert code == 0
    assert "anl to cloud: up" in said
    assert said.rstrip().splitlines()[-1].endswith("0 wait")
    for name in ("cli-anl", "cli-cloud"):
        memory.forget(name)


def test_a_link_that_came_up_just_before_the_signal_is_said(site: str, capsys: pytest.CaptureFixture[str]) -> None:
    class Arrived(StopSignals):
        """A signal that comes while the first look is waited for."""

        def wait(self, seconds: float) -> str:
            end = time.monotonic() + 100 * seconds
            while not bridge.stats()[0].is_up:
                assert time.monotonic() < end
                time.sleep(0.01)
            return "SIGTERM"

    with Bridge(BridgeConfig.from_file(Path(site))) as bridge:
        assert attend(bridge, Arrived(), every=10.0, end=None, until_idle=False)
    assert capsys.readouterr().err.endswith("anl to cloud: up\n")
    for name in ("cli-anl", "cli-cloud"):
        memory.forget(name)


def test_until_idle_has_a_limit(site: str) -> None:
    away = SITE.replace("memory://cli-cloud", "redis://127.0.0.1:1/0")
    away = away.replace('from = "anl"\nto = "cloud"', 'from = "cloud"\nto = "anl"')
    Path(site).write_text(away, encoding="utf-8")
    code, _, said = run(site, "--until-idle", "--limit", "1")
    assert code == 1
    assert "DOWN: cloud: redis://127.0.0.1:1/0 cannot be reached" in said
    memory.forget("cli-anl")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "bridge --example > site.toml"),
        (("nowhere.toml",), "cannot be read"),
        (("x", "--limit", "3"), "--until-idle"),
    ],
)
def test_wrong_input_ends_with_a_sentence(
    arguments: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["diaspora-parsl", "bridge", *arguments])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_a_line_tells_what_happened() -> None:
    stats = LinkStats(from_site="a", to_site="b", reads=True, writes=False, read=9, forwarded=5, waiting=1, refused=1,
                      thinned=2, looped=3, doubles=4, resyncs=1, malformed=1, reason="b: gone")  # fmt: skip
    assert line(stats) == (
        "a to b: 5 sent, 1 wait, 2 left out, 2 thinned, 3 came from there, 4 double, "
        "1 times TRIMMED before it was read, DOWN: b: gone"
    )
