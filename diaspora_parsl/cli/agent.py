"""`diaspora-parsl agent`: its options, and its life as a process."""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from diaspora_parsl.cli.signals import StopSignals
from diaspora_parsl.errors import ConfigurationError, FabricError
from diaspora_parsl.monitors.agent.agent import Agent, AgentConfig
from diaspora_parsl.monitors.agent.node_metrics import Node
from diaspora_parsl.monitors.agent.parent_watch import ParentWatch, block_name
from diaspora_parsl.monitors.discovery import open_live

if TYPE_CHECKING:
    from collections.abc import Sequence

_DESCRIPTION = """\
Publish the heartbeats of a node.

Belongs into an endpoint's worker_init, where it ends with the block, or is
started by hand at a site. A fabric that cannot be reached is tried again until
the end: the exit code is 0 then too, so that no block fails for it.
"""
_EXAMPLES = """\
Examples:
  diaspora-parsl agent --endpoint alpha --fabric redis://host:6379/0
  diaspora-parsl agent --endpoint alpha --site anl --run-dir runinfo/000 --interval 0.5
"""


def main(arguments: Sequence[str]) -> None:
    """Be an agent until the end.

    The options are read by `argparse`: what reads those of the other commands would take a quarter of the memory that
    an agent may take on a node.

    Raises:
        ConfigurationError: what was given can never work. Nothing else is raised.
    """
    options = _parser().parse_args(arguments)
    if options.parent is not None and options.no_parent:
        raise ConfigurationError("--parent and --no-parent say opposite things: give one of them.")
    parent = options.parent
    if parent is None and not options.no_parent and not os.isatty(0):
        parent = os.getppid()
    config = AgentConfig(
        endpoint=options.endpoint,
        site=options.site,
        block=block_name(parent) if options.block is None else options.block,
        node=socket.gethostname() if options.node is None else options.node,
        interval=options.interval,
    )
    # A permanent error is reported immediately; what is missing for now is tried again.
    with contextlib.suppress(FabricError):
        open_live(options.fabric, options.run_dir).close()
    with StopSignals() as signals, contextlib.closing(Node()) as node:
        Agent(config, lambda: open_live(options.fabric, options.run_dir), ParentWatch(parent), node=node).run(
            signals.wait
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="diaspora-parsl agent",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--endpoint", required=True, metavar="LABEL", help="endpoint to speak for, by the label that the pool uses")
    add("--site", default="", help="facility that the endpoint belongs to")
    add("--fabric", metavar="URL|PATH", help="URL of the fabric, or path of a run's fabric.json")
    add("--run-dir", type=Path, metavar="DIR", help="directory of the run; default: the newest run below here")
    add("--interval", type=float, default=1.0, metavar="SECONDS", help="time between two heartbeats; default: 1")
    add("--block", help="block of this node; default: from the name of the job")
    add("--node", help="name of this node; default: its host name")
    add("--parent", type=int, metavar="PID", help="end with this process; default: the one that started the agent")
    add("--no-parent", action="store_true", help="end with no process; the default in a terminal")
    return parser
