"""Configuration of a bridge: ``site.toml`` and its validation."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from diaspora_parsl.errors import ConfigurationError, FabricUnavailableError
from diaspora_parsl.events import TOPIC_CONTROL, TOPICS
from diaspora_parsl.fabric.base import Fabric, open_fabric, redacted

#: Topics forwarded by default: all except requests to pools.
DEFAULT_TOPICS: Final = tuple(topic for topic in TOPICS if topic != TOPIC_CONTROL)
DEFAULT_SAMPLE_SECONDS: Final = 10.0
DEFAULT_MAX_HOPS: Final = 4
DEFAULT_READ_AHEAD: Final = 20_000
#: Longest heartbeat interval that a pool accepts, seconds.
_LONGEST_SAMPLE: Final = 60.0
_MOST_HOPS: Final = 100
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

EXAMPLE: Final = """\
# A bridge at the site "anl": it joins the fabric of the site with the one in the cloud.
# Run it beside the fabric of the site:  diaspora-parsl bridge site.toml

# Name of the fabric to which the bridge publishes the state of its links.
home = "anl"

# Folder for the cursors of the links, on a local disk; one folder per bridge.
# A relative path starts at the folder of this file.
state = "bridge-state"

# Every fabric has the name of its site. Use the same names in all bridges of a tree.
[fabrics.anl]
run_dir = "runinfo/000"             # the embedded fabric of a run;
# url = "redis://login1:6379/0"     # ... or the URL of any fabric

[fabrics.cloud]
url_variable = "DIASPORA_CLOUD"     # an environment variable that holds the URL: no password in this file

# Events of the site go to the cloud.
[[links]]
from = "anl"
to = "cloud"
topics = ["parsl-task", "parsl-endpoint", "parsl-resource"]   # the default: all but parsl-control
sample_seconds = 10.0               # seconds between two forwarded heartbeats of a node; 0 for all

# Events of other sites come from the cloud.
[[links]]
from = "cloud"
to = "anl"
topics = ["parsl-endpoint", "parsl-resource"]
# start = "latest"                  # on the first start: skip the events that the fabric has stored
# max_hops = 4                      # number of bridges after which an event is dropped
# read_ahead = 20000                # largest number of events in memory while the other side is slow
"""


@dataclass(frozen=True, kw_only=True)
class FabricPlace:
    """Address of one fabric.

    Args:
        url: URL for `open_fabric`, or empty.
        run_dir: Run directory of a live run with an embedded fabric, instead of the URL.

    Raises:
        ConfigurationError: Neither or both are given, or ``url="embedded"``, which would start a new fabric.
    """

    url: str = ""
    run_dir: Path | None = None

    def __post_init__(self) -> None:
        """Check."""
        if bool(self.url) == (self.run_dir is not None):
            raise ConfigurationError('a fabric needs one of url and run_dir. Write url = "redis://host:6379/0".')
        if self.url == "embedded" or self.url.startswith("embedded:"):
            raise ConfigurationError(
                'a bridge joins fabrics that exist. Write run_dir = "runinfo/000" for that of a run.'
            )

    def __repr__(self) -> str:
        return f"FabricPlace({self})"

    def __str__(self) -> str:
        """Return the address without secrets."""
        return redacted(self.url) if self.url else str(self.run_dir)

    def open(self) -> Fabric:
        """Open the fabric at its present address.

        Raises:
            FabricURLError: No transport can open this URL.
            FabricUnavailableError: The directory has no live run with a fabric.
        """
        if self.run_dir is None:
            return open_fabric(self.url)
        from diaspora_parsl.fabric.address import live_url  # noqa: PLC0415 - needed for ``run_dir`` only

        url = live_url(self.run_dir)
        if url is None:
            raise FabricUnavailableError(f"{self.run_dir} holds no fabric that answers from here now")
        return open_fabric(url)


@dataclass(frozen=True, kw_only=True)
class LinkConfig:
    """One direction between two fabrics.

    Args:
        from_site: Name of the source fabric.
        to_site: Name of the destination fabric.
        topics: Topics to forward.
        sample_seconds: Seconds between two forwarded resource samples of one source, by their own time; 0 forwards
            all.
        max_hops: Number of crossed bridges from which an event is dropped.
        start: Start position without a cursor: "earliest" or "latest".
        read_ahead: Number of events in memory above which reading pauses, while the destination is slow or down.

    Raises:
        ConfigurationError: A value is invalid; the message says what to write.
    """

    from_site: str
    to_site: str
    topics: tuple[str, ...] = DEFAULT_TOPICS
    sample_seconds: float = DEFAULT_SAMPLE_SECONDS
    max_hops: int = DEFAULT_MAX_HOPS
    start: str = "earliest"
    read_ahead: int = DEFAULT_READ_AHEAD

    def __post_init__(self) -> None:
        """Check."""
        link = f"the link {self.label}"
        if self.from_site == self.to_site:
            raise ConfigurationError(f"{link} ends where it begins. Write two different fabrics.")
        for topic in self.topics:
            if topic not in TOPICS:
                raise ConfigurationError(
                    f"{link}: {topic!r} is no topic.{_close(topic, TOPICS)} There are {_list(TOPICS)}."
                )
        if not self.topics:
            raise ConfigurationError(f"{link} lets nothing through. Write topics = {list(DEFAULT_TOPICS)}.")
        if not 0 <= self.sample_seconds <= _LONGEST_SAMPLE:
            raise ConfigurationError(
                f"{link}: sample_seconds = {self.sample_seconds} is not between 0 and {_LONGEST_SAMPLE:.0f}. Write "
                "10.0; a pool takes a node that is silent for longer than a minute for lost."
            )
        if not 1 <= self.max_hops <= _MOST_HOPS:
            raise ConfigurationError(f"{link}: max_hops = {self.max_hops} is not between 1 and {_MOST_HOPS}. Write 4.")
        if self.start not in {"earliest", "latest"}:
            raise ConfigurationError(f'{link}: start = {self.start!r}. Write "earliest" or "latest".')
        if self.read_ahead < 1:
            raise ConfigurationError(f"{link}: read_ahead = {self.read_ahead} holds nothing. Write 20000.")

    @property
    def label(self) -> str:
        """Label of the link and name of its cursor, ``FROM-to-TO``."""
        return f"{self.from_site}-to-{self.to_site}"


@dataclass(frozen=True, kw_only=True)
class BridgeConfig:
    """Configuration of a bridge: fabrics and links between them.

    Args:
        home: Name of the fabric to which the bridge publishes the state of its links.
        state: Folder for the cursors, used by this bridge only.
        fabrics: Addresses by name of the site.
        links: Links, one direction each.
        name: Name of the bridge in its events; the name of its home if empty.

    Raises:
        ConfigurationError: The values are inconsistent; the message says what to write.
    """

    home: str
    state: Path
    fabrics: Mapping[str, FabricPlace]
    links: tuple[LinkConfig, ...]
    name: str = ""

    def __post_init__(self) -> None:
        """Check."""
        for site in self.fabrics:
            if not _NAME.fullmatch(site):
                raise ConfigurationError(
                    f"{site!r} is no name for a site. Write letters, digits, and . _ - between them."
                )
        if not self.links:
            raise ConfigurationError("A bridge without links joins nothing. Write [[links]] with from and to.")
        for what, site in [("home", self.home)] + [
            (key, site) for link in self.links for key, site in (("from", link.from_site), ("to", link.to_site))
        ]:
            if site not in self.fabrics:
                raise ConfigurationError(
                    f"{what} = {site!r}, but there is no such fabric.{_close(site, self.fabrics)} There are "
                    f"{_list(self.fabrics)}; write [fabrics.{site}] for one more."
                )
        labels = [link.label for link in self.links]
        for label in labels:
            if labels.count(label) > 1:
                raise ConfigurationError(f"The link {label} is there twice. Write one, with the topics of both.")

    @classmethod
    def from_file(cls, path: str | Path) -> BridgeConfig:
        """Read ``site.toml``; ``diaspora-parsl bridge --example`` prints an example.

        Raises:
            ConfigurationError: The file is unreadable or invalid.
        """
        path = Path(path)
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigurationError(
                f"{path} cannot be read: {error}. Write `diaspora-parsl bridge --example > site.toml` and change that."
            ) from None
        try:
            return _config(content, path.resolve().parent)
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}: {error}") from None


def _config(content: dict[str, Any], folder: Path) -> BridgeConfig:
    _known(content, ("home", "state", "name", "fabrics", "links"), "the file")
    fabrics = _value(content, "fabrics", dict, "the file", "[fabrics.NAME] with a url")
    links = _value(content, "links", list, "the file", "[[links]] with from and to")
    return BridgeConfig(
        home=_value(content, "home", str, "the file", 'home = "anl"'),
        state=folder / _value(content, "state", str, "the file", 'state = "bridge-state"'),
        name=_value(content, "name", str, "the file", 'name = "anl"', ""),
        fabrics={site: _place(site, table, folder) for site, table in fabrics.items()},
        links=tuple(map(_link, links)),
    )


def _place(site: str, table: Any, folder: Path) -> FabricPlace:
    where = f"[fabrics.{site}]"
    if not isinstance(table, dict):
        raise ConfigurationError(f'{where} is no table. Write {where} and below it url = "redis://host:6379/0".')
    _known(table, ("url", "url_variable", "run_dir"), where)
    if len(table) != 1:
        raise ConfigurationError(f"{where} needs one of url, url_variable and run_dir, and has {len(table)} of them.")
    (key,) = table
    value = _value(table, key, str, where, f'{key} = "..."')
    if key == "run_dir":
        return FabricPlace(run_dir=folder / value)
    if key == "url_variable":
        url = os.environ.get(value, "").strip()
        if not url:
            raise ConfigurationError(
                f"{where}: the environment variable {value} is not set. Set it to the fabric's URL."
            )
        value = url
    try:
        return FabricPlace(url=value)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from None


def _link(table: Any) -> LinkConfig:
    where = "[[links]]"
    if not isinstance(table, dict):
        raise ConfigurationError(f'{where} is no table. Write {where} and below it from = "anl" and to = "cloud".')
    _known(table, ("from", "to", "topics", "sample_seconds", "max_hops", "start", "read_ahead"), where)
    topics = _value(table, "topics", list, where, 'topics = ["parsl-task"]', list(DEFAULT_TOPICS))
    return LinkConfig(
        from_site=_value(table, "from", str, where, 'from = "anl"'),
        to_site=_value(table, "to", str, where, 'to = "cloud"'),
        topics=tuple(map(str, topics)),
        sample_seconds=float(
            _value(table, "sample_seconds", (int, float), where, "sample_seconds = 10.0", DEFAULT_SAMPLE_SECONDS)
        ),
        max_hops=_value(table, "max_hops", int, where, "max_hops = 4", DEFAULT_MAX_HOPS),
        start=_value(table, "start", str, where, 'start = "earliest"', "earliest"),
        read_ahead=_value(table, "read_ahead", int, where, "read_ahead = 20000", DEFAULT_READ_AHEAD),
    )


def _value(
    table: dict[str, Any], key: str, kind: type | tuple[type, ...], where: str, example: str, default: Any = None
) -> Any:
    value = table.get(key, default)
    if value is None:
        raise ConfigurationError(f"{where} lacks {key!r}. Write {example}.")
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ConfigurationError(f"{where}: {key} = {value!r} is of the wrong kind. Write {example}.")
    return value


def _known(table: dict[str, Any], keys: Collection[str], where: str) -> None:
    for key in table:
        if key not in keys:
            raise ConfigurationError(f"{where} has an unknown {key!r}.{_close(key, keys)} Known are {_list(keys)}.")


def _close(word: str, words: Collection[str]) -> str:
    close = difflib.get_close_matches(word, words, 1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _list(words: Collection[str]) -> str:
    return ", ".join(words)
