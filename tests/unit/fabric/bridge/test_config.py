from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diaspora_parsl.errors import ConfigurationError, FabricUnavailableError
from diaspora_parsl.events import TOPIC_CONTROL, TOPICS
from diaspora_parsl.fabric.bridge.config import EXAMPLE, BridgeConfig, FabricPlace, LinkConfig

GOOD = """
home = "anl"
state = "state"
[fabrics.anl]
url = "memory://anl"
[fabrics.cloud]
url = "redis://user:hunter2@cloud:6379/0"
[[links]]
from = "anl"
to = "cloud"
"""


def read(folder: Path, text: str) -> BridgeConfig:
    path = folder / "site.toml"
    path.write_text(text, encoding="utf-8")
    return BridgeConfig.from_file(path)


def test_the_example_is_valid_and_shows_every_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIASPORA_CLOUD", "redis://cloud:6379/0")
    config = read(tmp_path, EXAMPLE)
    assert config.home == "anl"
    assert config.state == tmp_path / "bridge-state"
    assert config.fabrics["anl"].run_dir == tmp_path / "runinfo/000"
    assert config.fabrics["cloud"].url == "redis://cloud:6379/0"
    assert [link.label for link in config.links] == ["anl-to-cloud", "cloud-to-anl"]
    for key in ("start", "max_hops", "read_ahead", "sample_seconds", "topics", "url", "name"):
        assert key in EXAMPLE or key == "name"


def test_requests_are_let_through_only_if_that_is_said(tmp_path: Path) -> None:
    (link,) = read(tmp_path, GOOD).links
    assert set(link.topics) == set(TOPICS) - {TOPIC_CONTROL}
    assert (link.sample_seconds, link.max_hops, link.start) == (10.0, 4, "earliest")
    (link,) = read(tmp_path, GOOD + 'topics = ["parsl-control"]').links
    assert link.topics == (TOPIC_CONTROL,)


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    config = read(tmp_path, GOOD)
    assert "hunter2" not in repr(config) + str(config) + str(config.fabrics["cloud"])
    assert str(config.fabrics["cloud"]) == "redis://user:***@cloud:6379/0"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("home = ", "hmoe = "), "unknown 'hmoe'. Did you mean 'home'?"),
        (('home = "anl"', ""), "lacks 'home'. Write home = "),
        (('home = "anl"', 'home = "alm"'), "no such fabric. Did you mean 'anl'?"),
        (('state = "state"', "state = 3"), "state = 3 is of the wrong kind. Write state = "),
        (('url = "memory://anl"', ""), "[fabrics.anl] needs one of url, url_variable and run_dir"),
        (('url = "memory://anl"', 'url_variable = "DIASPORA_NOT_SET"'), "DIASPORA_NOT_SET is not set"),
        (('url = "memory://anl"', 'url = "embedded"'), "[fabrics.anl]: a bridge joins fabrics that exist."),
        (("[fabrics.cloud]", '[fabrics."a b"]'), "'a b' is no name for a site"),
        (('to = "cloud"', 'to = "anl"'), "ends where it begins"),
        (('to = "cloud"', 'to = "cloud"\ntopics = ["parsl-tasks"]'), "'parsl-tasks' is no topic. Did you mean"),
        (('to = "cloud"', 'to = "cloud"\ntopics = []'), "lets nothing through"),
        (('to = "cloud"', 'to = "cloud"\nsample_seconds = 90'), "not between 0 and 60. Write 10.0"),
        (('to = "cloud"', 'to = "cloud"\nmax_hops = 0'), "Write 4"),
        (('to = "cloud"', 'to = "cloud"\nmax_hops = true'), "is of the wrong kind"),
        (('to = "cloud"', 'to = "cloud"\nstart = "now"'), 'Write "earliest" or "latest"'),
        (('to = "cloud"', 'to = "cloud"\nread_ahead = 0'), "Write 20000"),
        (('to = "cloud"', 'to = "cloud"\n[[links]]\nfrom = "anl"\nto = "cloud"'), "is there twice"),
        (("[[links]]", "[links]"), "is of the wrong kind. Write [[links]]"),
        (('[[links]]\nfrom = "anl"\nto = "cloud"', "links = []"), "lacks 'links'"),
        (("[[links]]", "[[links"), "cannot be read"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_what_to_write(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    assert change[0] in GOOD
    with pytest.raises(ConfigurationError) as raised:
        read(tmp_path, GOOD.replace(*change, 1))
    assert says in str(raised.value)
    assert str(raised.value).startswith(str(tmp_path / "site.toml"))
    assert "hunter2" not in str(raised.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"bridge --example > site\.toml"):
        BridgeConfig.from_file(tmp_path / "nowhere.toml")


@pytest.mark.parametrize("given", [{}, {"url": "memory://x", "run_dir": Path()}, {"url": "embedded:///x"}])
def test_a_place_is_one_thing(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        FabricPlace(**given)


def test_a_run_that_is_not_there_may_come(tmp_path: Path) -> None:
    with pytest.raises(FabricUnavailableError, match="no fabric that answers"):
        FabricPlace(run_dir=tmp_path).open()


def test_a_bridge_needs_links(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="joins nothing"):
        BridgeConfig(home="a", state=tmp_path, fabrics={"a": FabricPlace(url="memory://a")}, links=())
    assert LinkConfig(from_site="a", to_site="b").label == "a-to-b"
