"""The command that serves metrics and sends spans."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from diaspora_parsl.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

PORT: Final = 9464
_OTLP: Final = "http://localhost:4318/v1/traces"


def register(app: typer.Typer, examples: Callable[..., str]) -> None:
    """Add the command to the program."""

    @app.command(
        epilog=examples(
            "diaspora-parsl exporter runinfo/003",
            "diaspora-parsl exporter --fabric redis://host:6379/0 --port 9464",
            f"diaspora-parsl exporter --otlp {_OTLP}",
            "diaspora-parsl exporter --dashboard > dashboard.json",
        )
    )
    def exporter(
        run_dir: Annotated[
            Path | None, typer.Argument(help="Directory of the run. Default: the newest run below here.")
        ] = None,
        *,
        fabric: Annotated[
            str | None,
            typer.Option("--fabric", metavar="URL|PATH", help="URL of the fabric, or path of a run's fabric.json."),
        ] = None,
        port: Annotated[int, typer.Option(min=0, max=65535, help="Where Prometheus scrapes; 0: any free one.")] = PORT,
        address: Annotated[
            str, typer.Option(help="The interface to listen at. There is no password: keep it inside.")
        ] = "127.0.0.1",
        otlp: Annotated[
            str | None, typer.Option(metavar="URL", help=f"Send spans there, as over OTLP/HTTP: {_OTLP}.")
        ] = None,
        wait: Annotated[float, typer.Option(help="Seconds to wait for a run that has not started.")] = 60.0,
        dashboard: Annotated[bool, typer.Option("--dashboard", help="Print a dashboard for Grafana, and end.")] = False,
        alerts: Annotated[bool, typer.Option("--alerts", help="Print alert rules for Prometheus, and end.")] = False,
    ) -> None:
        """Serve the events of a fabric as metrics for Prometheus, and as spans."""
        if dashboard or alerts:
            from diaspora_parsl.monitors.exporter.assets import asset  # noqa: PLC0415

            typer.echo(asset("diaspora_parsl.json" if dashboard else "alerts.yaml"), nl=False)
            return
        _serve(run_dir, fabric, address, port, otlp, wait)


def _serve(run_dir: Path | None, fabric: str | None, address: str, port: int, otlp: str | None, wait: float) -> None:
    from diaspora_parsl.cli.signals import StopSignals  # noqa: PLC0415
    from diaspora_parsl.monitors import discovery  # noqa: PLC0415

    try:
        from diaspora_parsl.monitors.exporter.server import Exporter, served  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        raise _not_installed(missing, "exporter") from missing
    with contextlib.ExitStack() as stack:
        emit = None
        if otlp is not None:
            try:
                from diaspora_parsl.monitors.exporter.otlp import Spans, span_exporter  # noqa: PLC0415

                spans = Spans(span_exporter(otlp))
            except ModuleNotFoundError as missing:
                raise _not_installed(missing, "tracing") from missing
            stack.callback(spans.close)
            emit = spans.emit
        feed = stack.enter_context(contextlib.closing(discovery.feed(fabric, run_dir, wait=wait, say=_say)))
        exporter = Exporter(feed, emit)
        bound = stack.enter_context(served(exporter.metrics, address, port))
        signals = stack.enter_context(StopSignals())
        _say(f"metrics at http://{address}:{bound}/metrics; Ctrl-C ends it")
        exporter.run(signals.wait)


def _not_installed(missing: ModuleNotFoundError, extra: str) -> ConfigurationError:
    package = (missing.name or "").replace("_", "-")
    return ConfigurationError(
        f"`diaspora-parsl exporter` needs the package {package}, which is not installed. "
        f"Write: pip install 'diaspora-parsl[{extra}]'"
    )


def _say(sentence: str) -> None:
    typer.echo(f"diaspora-parsl exporter: {sentence}", err=True)
