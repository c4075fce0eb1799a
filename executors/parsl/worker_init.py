"""The line of shell that starts an agent with a block."""

from __future__ import annotations

import secrets
import shlex
from typing import TYPE_CHECKING, Final

from diaspora_parsl.fabric.base import redacted

if TYPE_CHECKING:
    from pathlib import Path


#: What starts the agent, as a format for `printf`: the dollar signs are written as octal numbers, so that nothing is
#: expanded before its time, be it in a here-document that a launcher makes of its command.
_START: Final = r'p=\044PPID; ( exec diaspora-parsl agent --parent "\044p" "\044@" </dev/null >/dev/null & )\n'
_EXPANDED: Final = {"$": "%24", "`": "%60", "\\": "%5C"}


def agent_command(endpoint: str, site: str, address: str | Path) -> str:
    """The line of shell that starts an agent: for a launcher (see `AgentLauncher`), or for a ``worker_init``.

    It works in any POSIX shell, does nothing where the package is not installed, and cannot fail a block. The agent is
    no child of the script, since some launchers end with a bare ``wait``; it holds neither the script's standard input
    nor its output, and ends with the script. ``worker_init`` runs once a block: on the first of its nodes.

    Args:
        endpoint: label of the endpoint in its pool.
        site: facility of the endpoint.
        address: path of the run's ``fabric.json`` or URL of a fabric. A URL with a credential is passed in the
            environment, since everybody on a host can read command lines.
    """
    words = ["--endpoint", endpoint, "--site", site]
    secret = ""
    if redacted(str(address)) != str(address):
        url = "".join(_EXPANDED.get(letter, letter) for letter in str(address))
        secret = f"DIASPORA_PARSL_FABRIC={shlex.quote(url)} "
    else:
        words += ["--fabric", str(address)]
    # Where workers write down what they run, for the agent to read when they die; below the temporary directory.
    board = f"export DIASPORA_PARSL_WORKERS=diaspora-parsl-workers-{secrets.token_hex(8)}"
    start = f"printf '{_START}' | {secret}sh -s -- {shlex.join(words)}"
    return f"if command -v diaspora-parsl >/dev/null 2>&1; then {board}; {start}; fi"
