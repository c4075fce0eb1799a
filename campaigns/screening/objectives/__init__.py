"""Objectives: what is asked about each molecule, and by which code. Importing this loads none of the codes."""

from __future__ import annotations

from pathlib import Path
from typing import cast, get_args

from diaspora_parsl.errors import ConfigurationError

from ..objective import Limits, Objective, Refused, Scope, hash_of, seed_of
from ..settings import Docking, Target
from .docking import DockingObjective
from .file import FileObjective
from .function import FunctionObjective
from .xtb import Quantity, XtbObjective

__all__ = [
    "DockingObjective",
    "FileObjective",
    "FunctionObjective",
    "Limits",
    "Objective",
    "Refused",
    "Scope",
    "XtbObjective",
    "hash_of",
    "parse_objective",
    "seed_of",
]


def parse_objective(
    text: str,
    *,
    target: Target,
    docking: Docking,
    maximize: bool = False,
    score_column: str | None = None,
) -> Objective:
    """The objective that a user wrote on a command line.

    Args:
        text: ``docking``; ``xtb`` or ``xtb:gap``, ``xtb:homo``, ``xtb:lumo``, ``xtb:energy_per_atom``;
            ``module:function`` or ``file.py:function``; or the path of a ``.csv`` or ``.csv.gz`` with scores.
        target: for docking.
        docking: for docking, and the limits per molecule of any.
        maximize: whether more is better.
        score_column: of a file with scores.

    Raises:
        ConfigurationError: it is none of these; the message says what to write instead.
    """
    limits = Limits(timeout=docking.timeout, memory=docking.memory)
    word, _, rest = text.partition(":")
    if text == "docking":
        if maximize:
            raise ConfigurationError("A lower Vina score is a better one. Leave --maximize out.")
        return DockingObjective(target=target, docking=docking)
    if word == "xtb":
        if rest and rest not in get_args(Quantity):
            raise ConfigurationError(f'xTB is not asked for "{rest}". Write one of {", ".join(get_args(Quantity))}.')
        return XtbObjective(
            quantity=cast("Quantity", rest or "gap"),
            maximize=maximize,
            max_heavy_atoms=docking.max_heavy_atoms,
            limits=limits,
        )
    if text.lower().endswith((".csv", ".csv.gz")):
        return FileObjective.of(Path(text), score_column=score_column, maximize=maximize)
    if ":" in text:
        return FunctionObjective.of(text, maximize=maximize, limits=limits)
    raise ConfigurationError(
        f'"{text}" is no objective. Write docking, xtb, module:function, file.py:function, or the path of a .csv with '
        "scores."
    )
