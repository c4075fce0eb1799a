"""Objectives: what is asked about each molecule, and by which code. Importing this loads none of the codes."""

from diaspora_parsl.campaigns.objectives.base import Limits, Objective, Refused, Scope, seed_of
from diaspora_parsl.campaigns.objectives.docking import DockingObjective

__all__ = ["DockingObjective", "Limits", "Objective", "Refused", "Scope", "seed_of"]
