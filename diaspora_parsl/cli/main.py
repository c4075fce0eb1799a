"""`diaspora-parsl`: one command a verb."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diaspora_parsl import __version__
from diaspora_parsl.cli import bridge, control, exporter, simulate_globus
from diaspora_parsl.errors import ConfigurationError, DiasporaParslError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Commands import what they need when they run: an agent on a node should not load what draws tables.

app = typer.Typer(
    name="diaspora-parsl",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Turns several places that can run Parsl tasks into one resilient compute pool.",
)

#: For commands whose options are read elsewhere.
_FORWARD = {"ignore_unknown_options": True, "allow_extra_args": True}

FabricOption = Annotated[
    str | None,
    typer.Option("--fabric", metavar="URL|PATH", help="URL of the fabric, or path of a run's fabric.json."),
]
RunDirOption = Annotated[
    Path | None,
    typer.Option("--run-dir", help="Directory of the run, such as runinfo/000. Default: the newest run below here."),
]


def _examples(*lines: str) -> str:
    # The control character keeps the help's formatter from flowing the lines together.
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"diaspora-parsl {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version and end.")
    ] = False,
) -> None:
    pass


@app.command(context_settings=_FORWARD, add_help_option=False)
def agent(ctx: typer.Context) -> None:
    """Publish the heartbeats of a node."""
    _agent(ctx.args)


@app.command(
    epilog=_examples(
        "diaspora-parsl watch",
        "diaspora-parsl watch --run-dir runinfo/003",
        "diaspora-parsl watch --fabric redis://host:6379/0 --once",
    )
)
def watch(
    *,
    fabric: FabricOption = None,
    run_dir: RunDirOption = None,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
    wait: Annotated[float, typer.Option(help="Seconds to wait for a run that has not started.")] = 60.0,
    every: Annotated[float, typer.Option(help="Without a terminal: seconds between two lines.")] = 5.0,
) -> None:
    """Show a run as it goes: endpoints, tasks, reroutes and their reasons."""
    from rich.console import Console  # noqa: PLC0415

    from diaspora_parsl.monitors import discovery  # noqa: PLC0415
    from diaspora_parsl.monitors.view.live_view import Watch  # noqa: PLC0415

    with _until_interrupted():
        feed = discovery.feed(fabric, run_dir, wait=0.0 if once else wait, say=_say)
        console = Console()
        with contextlib.closing(feed):
            view = Watch(feed, console)
            if once:
                view.once()
            elif console.is_terminal:
                view.live()
            else:
                view.lines(every)
            sys.stdout.flush()


@app.command(
    epilog=_examples(
        "diaspora-parsl events --task 17",
        "diaspora-parsl events --follow --type task.rerouted --endpoint alpha",
        "diaspora-parsl events --run-dir runinfo/003 --type 'endpoint.*' --since 5m",
        "diaspora-parsl events --schema > events.schema.json",
    )
)
def events(
    *,
    fabric: FabricOption = None,
    run_dir: RunDirOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until the run ends.")] = False,
    kind: Annotated[
        list[str] | None,
        typer.Option("--type", "-t", metavar="GLOB", help="Only such types: task.rerouted, 'endpoint.*'. Repeatable."),
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="Only what is about this endpoint.")] = None,
    task: Annotated[int | None, typer.Option(help="Only what is about this task.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Only what is younger: 90s, 5m, 2h, 1d, or an RFC 3339 time.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after this number of events.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of all events, and end.")] = False,
) -> None:
    """Print events as JSON lines, of a run that goes on or is over."""
    if schema:
        import json  # noqa: PLC0415

        from diaspora_parsl.events.schema import json_schema  # noqa: PLC0415

        typer.echo(json.dumps(json_schema(), indent=2))
        return
    from datetime import UTC, datetime  # noqa: PLC0415

    from diaspora_parsl.monitors import discovery  # noqa: PLC0415
    from diaspora_parsl.monitors.view.event_printer import EventFilter, print_events, since_time  # noqa: PLC0415

    wanted = EventFilter(
        types=tuple(kind or ()),
        endpoint=endpoint,
        task=task,
        since=None if since is None else since_time(since, datetime.now(UTC)),
    )
    out = sys.stdout.buffer
    with _until_interrupted(), contextlib.closing(discovery.feed(fabric, run_dir, say=_say)) as feed:
        print_events(
            feed, wanted, lambda line: (out.write(line), out.flush() if follow else None), follow=follow, limit=limit
        )
        # Here and not at the interpreter's end, where a reader that has gone away could not be met quietly.
        out.flush()


control.register(app, _examples)
bridge.register(app, _examples)
simulate_globus.register(app, _examples)
exporter.register(app, _examples)


@app.command(context_settings=_FORWARD, add_help_option=False, epilog=_examples("diaspora-parsl screen run --help"))
def screen(ctx: typer.Context) -> None:
    """Screen your own molecules against your own receptor: prepare, run, resume, report, benchmark."""
    _campaign("screen", ctx.args)


@app.command(context_settings=_FORWARD, add_help_option=False, epilog=_examples("diaspora-parsl demo --help"))
def demo(ctx: typer.Context) -> None:
    """Run a real docking campaign on three local sites, and kill one of them in the middle."""
    _campaign("demo", ctx.args)


def _agent(args: list[str]) -> None:
    from diaspora_parsl.cli.agent import main as agent_main  # noqa: PLC0415

    agent_main(args)


def _campaign(name: str, args: list[str]) -> None:
    """Run a command of the campaigns, which live in an extra that may not be installed."""
    campaigns = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    # One command alone would become the program itself; a callback keeps it a command.
    campaigns.callback()(lambda: None)
    with _until_interrupted():
        try:
            from diaspora_parsl.cli.screen import register  # noqa: PLC0415

            register(campaigns)
            campaigns(args=[name, *args], prog_name="diaspora-parsl")
        except ModuleNotFoundError as missing:
            package = (missing.name or "").partition(".")[0]
            if package == "diaspora_parsl" and missing.name != "diaspora_parsl.cli.screen":
                raise
            what = "packages that are" if package == "diaspora_parsl" else f"the package {package}, which is"
            raise ConfigurationError(
                f"`diaspora-parsl {name}` needs {what} not installed. Write: pip install 'diaspora-parsl[campaigns]'"
            ) from missing


@contextlib.contextmanager
def _until_interrupted() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _say(sentence: str) -> None:
    typer.echo(f"diaspora-parsl: {sentence}", err=True)


def main() -> None:
    """Entry point of the command `diaspora-parsl`."""
    try:
        if sys.argv[1:2] == ["agent"]:
            _agent(sys.argv[2:])  # typer at work would cost each node another 9 MB
        else:
            app(prog_name="diaspora-parsl")
    except DiasporaParslError as error:
        _say(str(error))
        sys.exit(2)


if __name__ == "__main__":
    main()
