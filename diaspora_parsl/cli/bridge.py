"""The command that joins fabrics: bridge."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from diaspora_parsl.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from diaspora_parsl.cli.signals import StopSignals
    from diaspora_parsl.fabric.bridge.bridge import Bridge
    from diaspora_parsl.fabric.bridge.config import BridgeConfig
    from diaspora_parsl.fabric.bridge.link import LinkStats

#: Seconds between two looks at the links.
_PERIOD: Final = 0.1
#: Exit code if the time was over before everything was through.
_UNFINISHED: Final = 1


def register(app: typer.Typer, examples: Callable[..., str]) -> None:
    """Add the command to the program."""
    lines = (
        "diaspora-parsl bridge --example > site.toml",
        "diaspora-parsl bridge site.toml --check",
        "diaspora-parsl bridge site.toml",
        "diaspora-parsl bridge site.toml --until-idle --limit 300",
    )
    app.command(epilog=examples(*lines))(bridge)


def bridge(
    config: Annotated[Path | None, typer.Argument(help="The file that says what to join.", show_default=False)] = None,
    *,
    example: Annotated[bool, typer.Option("--example", help="Print a file to start from, with comments.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Only check the file, and say what it would do.")] = False,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="End when everything is through, for use after a run.")
    ] = False,
    limit: Annotated[
        float | None,
        typer.Option(min=0.0, help="With --until-idle: seconds it may take; exit code 1 if it is not done."),
    ] = None,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two lines of progress.")] = 10.0,
) -> None:
    """Carry events between fabrics: what happens at a site goes up, what happens elsewhere comes down.

    Each link reads one fabric, forwards the configured topics, and writes them to another in batches and in order.
    Its cursor moves when the other side has a batch: a line that is cut, a kill -9 or a restart lose nothing. Ends in
    good order on Ctrl-C and SIGTERM.
    """
    from diaspora_parsl.fabric.bridge.config import EXAMPLE, BridgeConfig  # noqa: PLC0415

    if example:
        typer.echo(EXAMPLE, nl=False)
        return
    if config is None:
        raise ConfigurationError(
            "Write `diaspora-parsl bridge site.toml`; `diaspora-parsl bridge --example > site.toml` gives you one."
        )
    if limit is not None and not until_idle:
        raise ConfigurationError("--limit is for --until-idle. Write both, or none.")
    read = BridgeConfig.from_file(config)
    _introduce(read)
    if check:
        return

    from diaspora_parsl.cli.signals import StopSignals  # noqa: PLC0415
    from diaspora_parsl.fabric.bridge.bridge import Bridge  # noqa: PLC0415

    with StopSignals() as signals, Bridge(read) as running:
        done = attend(running, signals, every, time.monotonic() + limit if limit is not None else None, until_idle)
    for stats in running.stats():
        _say(line(stats))
    if running.error is not None:
        raise running.error
    if not done:
        raise typer.Exit(_UNFINISHED)


def _introduce(config: BridgeConfig) -> None:
    """Refuse fabrics that cannot be opened by anybody, and say what goes where."""
    for place in config.fabrics.values():
        if place.url:
            place.open().close()  # contacts nobody
    for link in config.links:
        start, end = config.fabrics[link.from_site], config.fabrics[link.to_site]
        samples = f", samples every {link.sample_seconds:g} s" if link.sample_seconds else ""
        _say(f"{link.from_site} ({start}) to {link.to_site} ({end}): {', '.join(link.topics)}{samples}")


def line(stats: LinkStats) -> str:
    """What a link did, in one line."""
    counters = {
        "left out": stats.refused + stats.malformed,
        "thinned": stats.thinned,
        "came from there": stats.looped,
        "double": stats.doubles,
    }
    counted = "".join(f", {count} {what}" for what, count in counters.items() if count)
    lost = f", {stats.resyncs} times TRIMMED before it was read" if stats.resyncs else ""
    down = f", DOWN: {stats.reason}" if stats.reason else ""
    return f"{stats.from_site} to {stats.to_site}: {stats.forwarded} sent, {stats.waiting} wait{counted}{lost}{down}"


def attend(bridge: Bridge, signals: StopSignals, every: float, end: float | None, until_idle: bool) -> bool:
    """Say how it goes until it is over; False if the time was over first."""
    due = time.monotonic() + every
    up: dict[str, bool] = {}
    while True:
        is_over = bool(signals.wait(_PERIOD)) or bridge.error is not None
        is_done = until_idle and bridge.is_idle
        # After it was found that this look is the last: what changed just before the end is said too.
        _say_changes(bridge, up)
        if is_over or is_done:
            return is_done or not until_idle
        now = time.monotonic()
        if end is not None and now >= end:
            return False
        if now >= due:
            due = now + every
            for stats in bridge.stats():
                _say(line(stats))


def _say_changes(bridge: Bridge, up: dict[str, bool]) -> None:
    """Say which links came up or went down since the last look, and note it in ``up``."""
    for stats in bridge.stats():
        name = f"{stats.from_site} to {stats.to_site}"
        if (stats.is_up or stats.reason) and up.get(name) is not stats.is_up:
            up[name] = stats.is_up
            _say(f"{name}: up" if stats.is_up else line(stats))


def _say(sentence: str) -> None:
    """One line on standard error, where a service's log is."""
    typer.echo(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {sentence}", err=True)
