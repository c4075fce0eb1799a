"""The command that runs a local Globus Compute: simulate-globus."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from diaspora_parsl.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from diaspora_parsl.cli.signals import StopSignals
    from diaspora_parsl.testing.globus import LocalGlobusCompute

#: What the first endpoints are called.
_LABELS: Final = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta")
#: Seconds between two looks, and between two lines without a terminal.
_PERIOD: Final = 0.5
_LINES: Final = 5.0


def register(app: typer.Typer, examples: Callable[..., str]) -> None:
    """Add the command to the program."""
    lines = (
        "diaspora-parsl simulate-globus",
        "diaspora-parsl simulate-globus --endpoints 5 --port 5000 --faults script.json",
    )
    app.command(epilog=examples(*lines))(simulate_globus)


def simulate_globus(
    *,
    endpoints: Annotated[int, typer.Option(min=1, help="How many; they are called alpha, beta, gamma, ...")] = 3,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes of each.")] = 2,
    port: Annotated[int, typer.Option(help="Of the service; 0: any. At 5000 the SDK finds it by itself.")] = 0,
    faults: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A FaultScript as JSON; its times count from the start."),
    ] = None,
) -> None:
    """Run a local Globus Compute, for code that uses its SDK: a service and endpoints that can be broken."""
    from diaspora_parsl.cli.signals import StopSignals  # noqa: PLC0415
    from diaspora_parsl.testing import globus  # noqa: PLC0415
    from diaspora_parsl.testing.faults import FaultScript  # noqa: PLC0415

    reason = globus.why_not()
    if reason is not None:
        raise ConfigurationError(f"`diaspora-parsl simulate-globus` cannot run: {reason}")
    from diaspora_parsl.testing.faults.injector import Injector  # noqa: PLC0415
    from diaspora_parsl.testing.globus.view import introduction  # noqa: PLC0415 - only now: it needs the extra

    script = FaultScript() if faults is None else FaultScript.from_json(faults.read_bytes())
    with StopSignals() as signals, globus.LocalGlobusCompute(port=port) as service:
        for label in labels(endpoints):
            service.endpoint(label, workers=workers)
        typer.echo(introduction(service))
        with Injector(script, service.endpoints):
            _show(service, signals)


def labels(count: int) -> list[str]:
    """Return the names of a number of endpoints."""
    return [*_LABELS, *(f"endpoint-{number}" for number in range(len(_LABELS), count))][:count]


def _show(service: LocalGlobusCompute, signals: StopSignals) -> None:
    """Show how it goes until a signal comes."""
    from rich.console import Console  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415

    from diaspora_parsl.testing.globus.view import line, table  # noqa: PLC0415

    console = Console()
    if console.is_terminal:
        with Live(table(service), console=console, auto_refresh=False) as live:
            while not signals.wait(_PERIOD):
                live.update(table(service), refresh=True)
        return
    said = ""
    while True:
        now = line(service)
        if now != said:
            typer.echo(now)
            said = now
        if signals.wait(_LINES):
            return
