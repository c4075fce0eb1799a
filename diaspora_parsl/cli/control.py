"""The commands that ask running pools for something: drain, resume, quarantine, maintenance."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from diaspora_parsl.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

Endpoint = Annotated[str, typer.Argument(help="Label of the endpoint.", show_default=False)]
For = Annotated[str | None, typer.Option("--for", metavar="DURATION", help="90s, 5m, 2h or 1d.")]
Reason = Annotated[str, typer.Option(help="Reason shown to people who ask why.")]
Pool = Annotated[str, typer.Option(help="Only the pool of this name. Default: every pool that has the endpoint.")]
Wait = Annotated[float, typer.Option(min=0.1, help="Seconds that pools have to answer.")]
Fabric = Annotated[
    str | None,
    typer.Option("--fabric", metavar="URL|PATH", help="URL of the fabric, or path of a run's fabric.json."),
]
RunDir = Annotated[
    Path | None,
    typer.Option("--run-dir", help="Directory of the run, such as runinfo/000. Default: the newest run below here."),
]

_WAIT: Final = 10.0
_QUARANTINE: Final = "60s"
#: How a command ends if nobody followed it.
_UNHEARD: Final = 1


def register(app: typer.Typer, examples: Callable[..., str]) -> None:
    """Add the commands to the program."""
    for command, lines in (
        (drain, ("diaspora-parsl drain alpha --for 2h --reason 'new file system'", "diaspora-parsl drain alpha")),
        (resume, ("diaspora-parsl resume alpha",)),
        (quarantine, ("diaspora-parsl quarantine alpha --for 10m --reason 'strange results'",)),
        (
            maintenance,
            (
                "diaspora-parsl maintenance alpha --from 2026-12-01T08:00:00Z --to 2026-12-01T18:00:00Z",
                "diaspora-parsl maintenance anl --from +1h --to +5h --reason 'cooling'",
                "diaspora-parsl maintenance anl --cancel",
            ),
        ),
    ):
        app.command(epilog=examples(*lines))(command)


def drain(
    endpoint: Endpoint, *, duration: For = None, reason: Reason = "", pool: Pool = "", wait: Wait = _WAIT,
    fabric: Fabric = None, run_dir: RunDir = None,
) -> None:  # fmt: skip
    """Send nothing new to an endpoint of a running pool; what runs there may finish."""
    from diaspora_parsl import events as ev  # noqa: PLC0415
    from diaspora_parsl.monitors import control_client  # noqa: PLC0415

    length = None if duration is None else control_client.duration(duration)

    def make() -> ev.Payload:
        until = "" if length is None else control_client.rfc3339(datetime.now(UTC) + length)
        return ev.EndpointDrainRequested(endpoint=endpoint, pool=pool, until=until, reason=reason)

    _ask(endpoint, make, pool, wait, fabric, run_dir)


def resume(
    endpoint: Endpoint, *, reason: Reason = "", pool: Pool = "", wait: Wait = _WAIT, fabric: Fabric = None,
    run_dir: RunDir = None,
) -> None:  # fmt: skip
    """Send work to an endpoint again: a drain, a window that is open now and a quarantine by hand are over."""
    from diaspora_parsl import events as ev  # noqa: PLC0415

    payload = ev.EndpointResumeRequested(endpoint=endpoint, pool=pool, reason=reason)
    _ask(endpoint, lambda: payload, pool, wait, fabric, run_dir)


def quarantine(
    endpoint: Endpoint, *, duration: For = _QUARANTINE, reason: Reason = "", pool: Pool = "", wait: Wait = _WAIT,
    fabric: Fabric = None, run_dir: RunDir = None,
) -> None:  # fmt: skip
    """Send nothing to an endpoint for a while, then one attempt at a time, until one succeeds."""
    from diaspora_parsl import events as ev  # noqa: PLC0415
    from diaspora_parsl.monitors import control_client  # noqa: PLC0415

    length = control_client.duration(duration or _QUARANTINE)

    def make() -> ev.Payload:
        until = control_client.rfc3339(datetime.now(UTC) + length)
        return ev.EndpointQuarantineRequested(endpoint=endpoint, pool=pool, until=until, reason=reason)

    _ask(endpoint, make, pool, wait, fabric, run_dir)


def maintenance(
    place: Annotated[str, typer.Argument(help="Label of an endpoint, or name of a site.", show_default=False)],
    *,
    start: Annotated[str | None, typer.Option("--from", metavar="TIME", help="With a zone, or +2h from now.")] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="With a zone, or +2h from now.")] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Call off every window of this place.")] = False,
    reason: Reason = "",
    pool: Pool = "",
    wait: Wait = _WAIT,
    fabric: Fabric = None,
    run_dir: RunDir = None,
) -> None:
    """Announce a window of maintenance: no work that would run into it, a drain in time, and back after it."""
    from diaspora_parsl import events as ev  # noqa: PLC0415
    from diaspora_parsl.monitors import control_client  # noqa: PLC0415

    payload: ev.Payload
    if cancel:
        if start or end:
            raise ConfigurationError("--cancel calls off every window: leave --from and --to away.")
        payload = ev.MaintenanceCancelled(place=place, pool=pool, reason=reason)
    else:
        if not start or not end:
            raise ConfigurationError("A window needs its start and its end: --from +1h --to +5h.")
        begin, over = control_client.moment(start, "--from"), control_client.moment(end, "--to")
        if over <= begin or over <= datetime.now(UTC):
            raise ConfigurationError(f"A window must end after it starts, and not be over: --from {start} --to {end}.")
        payload = ev.MaintenanceAnnounced(
            place=place, start=control_client.rfc3339(begin), end=control_client.rfc3339(over), pool=pool, reason=reason
        )
    _ask(place, lambda: payload, pool, wait, fabric, run_dir, or_site=True)


def _ask(
    place: str, make: Callable[[], Any], pool: str, wait: float, fabric: str | None, run_dir: Path | None, *,
    or_site: bool = False,
) -> None:  # fmt: skip
    from diaspora_parsl.monitors import discovery  # noqa: PLC0415
    from diaspora_parsl.monitors.control_client import Control  # noqa: PLC0415

    with contextlib.closing(discovery.open_live(fabric, run_dir)) as opened:
        key = discovery.key(opened.url, fabric, run_dir)
        outcome = Control(opened, key, pool, wait).ask(place, make, or_site=or_site)
    for sentence in outcome.sentences():
        typer.echo(sentence, err=not outcome.is_followed)
    if not outcome.is_followed:
        raise typer.Exit(_UNHEARD)
