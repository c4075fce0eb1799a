"""Files that come with the package: the dashboard and the alerts."""

from __future__ import annotations

from importlib.resources import files


def asset(name: str) -> str:
    """The text of ``monitors/grafana/<name>``."""
    return (files("diaspora_parsl.monitors") / "grafana" / name).read_text(encoding="utf-8")
