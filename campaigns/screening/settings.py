"""What a campaign is asked to do: frozen, keyword-only, checked when it is written down."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Literal, NamedTuple, get_args

from diaspora_parsl.errors import ConfigurationError

Acquisition = Literal["greedy", "ucb", "ei", "thompson", "random"]
SurrogateName = Literal["auto", "gp", "lightgbm", "forest"]

_SECOND: Final = re.compile(r"(?:(max|min):([a-z_]+)|([a-z_]+)(<=|>=)(-?\d+(?:\.\d+)?))")


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """The part of the receptor in which poses are searched."""

    center: tuple[float, float, float]
    """Coordinates in Å, in the frame of the receptor."""
    size: tuple[float, float, float]
    """Edge lengths in Å."""

    def __post_init__(self) -> None:
        if min(self.size) <= 0 or max(self.size) > 60:  # noqa: PLR2004 - Vina warns above 27,000 Å³, memory ends at 60 Å
            raise ConfigurationError(f"A box of {self.size} Å cannot be searched. Write edges between 1 and 60 Å.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Docking:
    """How one molecule is docked; the same at every site, so that scores can be compared."""

    exhaustiveness: int = 1
    max_evals: int = 0
    """Limit of Vina's evaluations per Monte Carlo run; 0 leaves it to Vina."""
    timeout: float = 120.0
    """Seconds for embedding, preparing and docking one molecule."""
    memory: int = 4000
    """MB that one molecule may take beyond the loaded codes; 0 for no limit."""
    max_heavy_atoms: int = 80
    """Larger molecules are refused before they are embedded."""

    def __post_init__(self) -> None:
        if self.exhaustiveness < 1:
            raise ConfigurationError(f"exhaustiveness={self.exhaustiveness} searches nothing. Write 1 or more.")
        if self.max_evals < 0:
            raise ConfigurationError(f"max_evals={self.max_evals} is no limit. Write 0 to leave it to Vina.")
        if self.timeout < 1:
            raise ConfigurationError(f"timeout={self.timeout} s is too short to dock anything. Write 1 or more.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A receptor and its box, as they travel to the workers: by value, so that sites need no shared file system."""

    name: str
    receptor: bytes
    """The rigid receptor as PDBQT, compressed by zlib: about 35 KB for a protein of 200 residues."""
    box: Box

    @classmethod
    def of(cls, pdbqt: str, box: Box, *, name: str) -> Target:
        """Pack the text of a PDBQT file."""
        return cls(name=name, receptor=zlib.compress(pdbqt.encode(), 9), box=box)

    @property
    def pdbqt(self) -> str:
        """The receptor as text."""
        return zlib.decompress(self.receptor).decode()

    @property
    def digest(self) -> str:
        """Short name of receptor and box together: what maps are cached under."""
        return sha256((self.pdbqt + repr(self.box)).encode()).hexdigest()[:16]


class Second(NamedTuple):
    """A second objective: a property to make large or small, or a limit to keep."""

    name: str
    """Of the property, such as ``qed`` or ``mw``."""
    sign: int
    """1 if less is better, -1 if more is."""
    limit: float | None
    """Beyond which it becomes bad; None if there is no limit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How the campaign spends its budget."""

    budget: int
    """Molecules to dock, failures included."""
    initial: int = 0
    """Molecules chosen at random before the surrogate chooses; 0 means a tenth of the budget, at least 10."""
    in_flight: int = 8
    """Tasks kept in Parsl's hands. More than the workers need makes the choice older than it must be."""
    refit_every: int = 0
    """Results between two fits of the surrogate; 0 means a fiftieth of the budget, at least 4."""
    surrogate: SurrogateName = "auto"
    """``gp``, ``lightgbm`` or ``forest``; ``auto`` is the Gaussian process, and LightGBM for more scores than that
    can take."""
    gp_limit: int = 3000
    """Scores above which ``auto`` means LightGBM: the Gaussian process costs their number cubed."""
    acquisition: Acquisition = "greedy"
    ucb_beta: float = 1.0
    """Weight of the uncertainty, in standard deviations, for ``ucb``."""
    scaffold_cap: int = 0
    """Molecules of one Bemis-Murcko scaffold at most, as far as others are left; 0 for no cap."""
    second: str = ""
    """A second objective for a Pareto choice: ``max:qed``, ``min:logp``, ``mw<=500``, ``tpsa>=20``; empty for none."""
    seed: int = 0
    rounds: int = 0
    """Synchronous rounds, the random batch included; 0 chooses one by one as results arrive."""

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise ConfigurationError(f"budget={self.budget} docks nothing. Write the number of molecules to dock.")
        if self.in_flight < 1:
            raise ConfigurationError(f"in_flight={self.in_flight} keeps no worker busy. Write 1 or more.")
        if min(self.initial, self.refit_every, self.scaffold_cap) < 0:
            raise ConfigurationError(
                "initial, refit_every and scaffold_cap are numbers of molecules. Write 0 for the default."
            )
        if self.gp_limit < 1:
            raise ConfigurationError(f"gp_limit={self.gp_limit} is no number of scores. Write 1 or more.")
        _check_word("acquisition", self.acquisition, get_args(Acquisition))
        _check_word("surrogate", self.surrogate, get_args(SurrogateName))
        if self.second and not _SECOND.fullmatch(self.second):
            raise ConfigurationError(
                f'second="{self.second}" is no objective. Write "max:qed", "min:logp", "mw<=500" or the like.'
            )

    @property
    def first_batch(self) -> int:
        """How many molecules are chosen at random before the surrogate chooses."""
        return min(self.budget, self.initial or max(10, self.budget // 10))

    @property
    def refit_after(self) -> int:
        """How many new results make a new fit worthwhile."""
        return self.refit_every or max(4, self.budget // 50)

    @property
    def second_objective(self) -> Second | None:
        """What ``second`` says."""
        found = _SECOND.fullmatch(self.second)
        if found is None:
            return None
        if found[2]:
            return Second(found[2], -1 if found[1] == "max" else 1, None)
        return Second(found[3], 1 if found[4] == "<=" else -1, float(found[5]))


def _check_word(field: str, word: str, known: tuple[str, ...]) -> None:
    if word not in known:
        options = ", ".join(f'"{option}"' for option in known[:-1]) + f' or "{known[-1]}"'
        raise ConfigurationError(f'{field}="{word}" is unknown. Write {options}.')
