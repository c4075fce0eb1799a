"""What every objective offers: it asks one thing about a molecule, where its answer can be computed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b, sha256
from typing import ClassVar

from diaspora_parsl.errors import ConfigurationError

from .records import Result, Status

#: Scores one canonical SMILES; raises `Refused`, or anything, for what has no score.
Scorer = Callable[[str], Result]


class Refused(Exception):  # noqa: N818 - not an error: a result with a reason
    """A molecule that has no score, and why."""

    def __init__(self, status: Status, detail: str) -> None:
        super().__init__(status, detail)
        self.result = Result(status=status, detail=detail)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one molecule may take at most; kept by the kernel, whatever the code does."""

    timeout: float = 120.0
    """Seconds."""
    memory: int = 4000
    """MB beyond what the loaded codes have mapped; 0 for no limit."""

    def __post_init__(self) -> None:
        if self.timeout < 1:
            raise ConfigurationError(f"timeout={self.timeout} s is too short to score anything. Write 1 or more.")
        if self.memory < 0 or 0 < self.memory < 100:  # noqa: PLR2004 - any code needs so much for its own tables
            raise ConfigurationError(f"memory={self.memory} MB is too little. Write 100 or more, or 0 for no limit.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """Which molecules an objective can be asked about; others are refused when the library is read."""

    elements: frozenset[str] | None = None
    """Symbols; None for all."""
    max_heavy_atoms: int = 0
    """0 for no limit."""


class Objective(ABC):
    """What is asked about each molecule. Frozen, picklable, and complete: it travels to the workers by value."""

    __slots__ = ()

    #: Whether it needs a process of its own: for code that may crash, hang or take all memory.
    isolated: ClassVar[bool] = True
    #: Of the score.
    unit: ClassVar[str] = ""

    @property
    @abstractmethod
    def name(self) -> str:
        """For readers: what the score is."""

    @property
    @abstractmethod
    def limits(self) -> Limits:
        """Per molecule."""

    @property
    def scope(self) -> Scope:
        """Which molecules it can be asked about."""
        return Scope()

    @property
    def maximize(self) -> bool:
        """Whether more of what the code computes is better."""
        return False

    @property
    def sign(self) -> int:
        """The score times this is what the code computed: -1 if more is better, because lower scores are better."""
        return -1 if self.maximize else 1

    @property
    def digest(self) -> str:
        """Short name of all that decides the score: what a process keeps loaded is kept under it."""
        return digest_of(self.settings())

    @abstractmethod
    def settings(self) -> dict[str, object]:
        """All that decides the score, for the ledger and the report."""

    @abstractmethod
    def scorer(self) -> Scorer:
        """Load what scoring needs; called where the score is computed, once per process.

        Raises:
            Refused: it cannot work anywhere, such as with a useless receptor.
            ImportError: a code is not installed here.
        """

    def part_for(self, smiles: str) -> Objective:
        """What must travel to score this one molecule; all of it, unless it is a table."""
        del smiles
        return self


def seed_of(canonical: str) -> int:
    """A seed for a molecule, the same at every site and in every run."""
    return int.from_bytes(sha256(canonical.encode()).digest()[:4], "big") & 0x7FFFFFFF or 1


def hash_of(canonical: str) -> int:
    """Eight bytes that stand for a SMILES: two of a million molecules share them with a chance of 3e-8."""
    return int.from_bytes(blake2b(canonical.encode(), digest_size=8).digest(), "little")


def digest_of(settings: dict[str, object], *more: str) -> str:
    """A short name for settings."""
    return sha256(repr((sorted(settings.items(), key=repr), more)).encode()).hexdigest()[:16]
