"""The line of shell that starts an agent with a block."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from diaspora_parsl.fabric.base import redacted

if TYPE_CHECKING:
    from pathlib import Path


def agent_command(endpoint: str, site: str, address: str | Path) -> str:
    """The line of shell that starts an agent, for an endpoint's ``worker_init``.

    It works in any POSIX shell, does nothing where the package is not installed, and cannot fail a block. The agent is
    no child of the script, since some launchers end with a bare ``wait``; it holds neither the script's standard input
    nor its output, and ends with the script. ``worker_init`` runs once a block: for a block of several nodes, put the
    line in front of the executor's ``launch_cmd`` instead.

    Args:
        endpoint: label of the endpoint in its pool.
        site: facility of the endpoint.
        address: path of the run's ``fabric.json`` or URL of a fabric. A URL with a credential is passed in the
            environment, since everybody on a host can read command lines.
    """
    words = ["diaspora-parsl", "agent", "--endpoint", endpoint, "--site", site]
    secret = ""
    if redacted(str(address)) != str(address):
        secret = f"export DIASPORA_PARSL_FABRIC={shlex.quote(str(address))}; "
    else:
        words += ["--fabric", str(address)]
    start = f"{shlex.join(words)} --parent $$ </dev/null >/dev/null"
    return f"( {secret}command -v diaspora-parsl >/dev/null 2>&1 && exec {start} & )"
