"""Real science on the pool: AI-guided molecule screening."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if __name__ != "diaspora_parsl.campaigns":
    raise ImportError("import diaspora_parsl.campaigns, not campaigns")

if TYPE_CHECKING:
    from diaspora_parsl.campaigns.budget import Budget
    from diaspora_parsl.campaigns.folder import read_folder
    from diaspora_parsl.campaigns.library import Library
    from diaspora_parsl.campaigns.objectives import DockingObjective, FileObjective, FunctionObjective, XtbObjective
    from diaspora_parsl.campaigns.session import Job, resume_campaign, run_campaign
    from diaspora_parsl.campaigns.settings import Box, Docking, Plan, Target

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
    "Library": "library",
    "read_folder": "folder",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for: chemistry and plots take seconds to load."""
    if name in _HOMES:
        return getattr(import_module(f"diaspora_parsl.campaigns.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
