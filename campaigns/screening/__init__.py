"""Real science on the pool: AI-guided molecule screening."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .budget import Budget
    from .library.reader import Library
    from .objectives import DockingObjective, FileObjective, FunctionObjective, XtbObjective
    from .session import Job, resume_campaign, run_campaign
    from .settings import Box, Docking, Plan, Target
    from .workspace import read_folder

__all__ = [
    "Box",
    "Budget",
    "Docking",
    "DockingObjective",
    "FileObjective",
    "FunctionObjective",
    "Job",
    "Library",
    "Plan",
    "Target",
    "XtbObjective",
    "read_folder",
    "resume_campaign",
    "run_campaign",
]

_HOMES = {
    **dict.fromkeys(("Box", "Docking", "Plan", "Target"), "settings"),
    **dict.fromkeys(("DockingObjective", "FileObjective", "FunctionObjective", "XtbObjective"), "objectives"),
    **dict.fromkeys(("Job", "resume_campaign", "run_campaign"), "session"),
    "Budget": "budget",
    "Library": "library.reader",
    "read_folder": "workspace",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for: chemistry and plots take seconds to load."""
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
