"""A launcher that starts an agent on every node of every block."""

from __future__ import annotations

from pathlib import Path

from parsl.launchers import WrappedLauncher
from parsl.launchers.base import Launcher

from diaspora_parsl.errors import ConfigurationError

from .worker_init import agent_command


class AgentLauncher(Launcher):
    """``launcher=AgentLauncher(SrunLauncher(), endpoint="alpha", fabric=...)``: any launcher of Parsl's, and agents.

    The line that starts an agent goes in front of the one that starts the manager, wherever the inner launcher runs
    that: with one that starts managers on all nodes of a block, an agent is beside each. A pool puts it around the
    launcher of an `Endpoint` with ``agent=True`` itself.

    Args:
        inner: the launcher to be used.
        endpoint: label of the endpoint that agents speak for.
        site: its facility.
        fabric: URL of the fabric, or path of a run's ``fabric.json``, as the nodes reach it.

    Raises:
        ConfigurationError: ``inner`` is no launcher, or there is nothing to speak for or to.
    """

    def __init__(self, inner: Launcher, *, endpoint: str, site: str = "", fabric: str | Path) -> None:
        if not isinstance(inner, Launcher) or isinstance(inner, AgentLauncher):
            raise ConfigurationError(f"AgentLauncher goes around one of Parsl's launchers once, not around {inner!r}.")
        if not endpoint.strip() or not str(fabric).strip():
            raise ConfigurationError(
                'An agent speaks for an endpoint on a fabric: endpoint="alpha", fabric="redis://…".'
            )
        super().__init__(debug=getattr(inner, "debug", True))
        self.inner = inner
        self.endpoint = endpoint
        self.site = site
        self.fabric = fabric

    def __repr__(self) -> str:
        return f"AgentLauncher({self.inner!r}, endpoint={self.endpoint!r}, site={self.site!r})"  # no password

    def __call__(self, command: str, tasks_per_node: int, nodes_per_block: int, script_dir: str = "") -> str:
        """The script of a block, as Parsl asks for it."""
        line = agent_command(self.endpoint, self.site, self.fabric)
        if isinstance(self.inner, WrappedLauncher):  # what it puts in front is for one line only
            return f"{line}\n{self._launch(command, tasks_per_node, nodes_per_block, script_dir)}"
        return self._launch(f"{line}\n{command}", tasks_per_node, nodes_per_block, script_dir)

    def _launch(self, command: str, tasks_per_node: int, nodes_per_block: int, script_dir: str) -> str:
        if not script_dir:  # launchers that other people wrote may not know it
            return self.inner(command, tasks_per_node, nodes_per_block)
        return self.inner(command, tasks_per_node, nodes_per_block, script_dir)
