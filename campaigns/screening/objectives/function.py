"""A user's own function as objective: SMILES in, number out."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from diaspora_parsl.errors import ConfigurationError

from ..objective import Limits, Objective, Refused, Scope, Scorer, digest_of, seed_of
from ..records import Result


@dataclass(frozen=True, kw_only=True, slots=True)
class FunctionObjective(Objective):
    """A function ``f(smiles: str) -> float`` that the user wrote.

    Raises:
        ConfigurationError: what is given names no function.
    """

    function: str
    """``module:function``, a module that every site can import."""
    source: str = ""
    """Text of the module, if it is a file of the user: it travels, and need not be installed anywhere."""
    maximize: bool = False
    """Whether more is better. Scores are better when lower, so they are then the negative of what the function says."""
    limits: Limits = field(default_factory=Limits)
    scope: Scope = field(default_factory=Scope)

    def __post_init__(self) -> None:
        module, colon, name = self.function.rpartition(":")
        if not (module and colon and name.isidentifier()):
            raise ConfigurationError(
                f'"{self.function}" names no function. Write module:function, or path/to/file.py:function.'
            )
        if self.source:
            try:
                compile(self.source, module, "exec")
            except (SyntaxError, ValueError) as error:
                raise ConfigurationError(f"{module} is no Python: {error}.") from error

    @classmethod
    def of(cls, function: str, *, maximize: bool = False, limits: Limits | None = None) -> FunctionObjective:
        """From ``module:function`` or ``path/to/file.py:function``; the text of a file is read, and travels.

        Raises:
            ConfigurationError: there is no such file, or no function is named.
        """
        module, _, name = function.rpartition(":")
        source = ""
        if module.endswith(".py"):
            try:
                source = Path(module).read_text(encoding="utf-8")
            except (OSError, ValueError) as error:
                raise ConfigurationError(f"The objective {module} cannot be read: {error}.") from error
            function = f"{Path(module).name}:{name}"
            if not source.strip():
                raise ConfigurationError(f"The objective {module} is empty. Write a function {name}(smiles) there.")
        return cls(function=function, source=source, maximize=maximize, limits=limits or Limits())

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.rpartition(":")[2]

    @property
    def digest(self) -> str:
        """Of name and text."""
        return digest_of(self.settings(), self.source)

    def settings(self) -> dict[str, object]:
        """All that decides the score."""
        return {
            "objective": self.function,
            "text of the function": digest_of({}, self.source) if self.source else "as installed at the sites",
            "maximize": self.maximize,
            "timeout": self.limits.timeout,
            "memory": self.limits.memory,
        }

    def scorer(self) -> Scorer:
        """Import the function.

        Raises:
            ImportError: the module is not here, or has no such function.
        """
        function = self._found()

        def score(smiles: str) -> Result:
            value = function(smiles)
            try:
                number = math.nan if value is None else float(value)
            except (TypeError, ValueError):
                raise Refused("dock", f"{self.name} returned {value!r:.60}, which is no number.") from None
            if not math.isfinite(number):
                raise Refused("dock", f"{self.name} returned {value!r:.60}.")
            return Result(status="ok", score=self.sign * number, seed=seed_of(smiles))

        return score

    def _found(self) -> Callable[[str], Any]:
        place, _, name = self.function.rpartition(":")
        if self.source:
            module = ModuleType(Path(place).stem)
            exec(compile(self.source, place, "exec"), module.__dict__)  # noqa: S102 - the user's own code
        else:
            module = importlib.import_module(place)
        function = getattr(module, name, None)
        if not callable(function):
            raise ImportError(f"{place} has no function {name}", name=place)  # noqa: TRY004 - the place lacks it
        found: Callable[[str], Any] = function
        return found
