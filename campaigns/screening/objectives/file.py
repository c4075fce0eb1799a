"""Scores that are known already, from a file: to test a choice without computing anything, or to replay a campaign."""

from __future__ import annotations

import csv
import gzip
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import IO, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from diaspora_parsl.errors import ConfigurationError

from ..objective import Limits, Objective, Refused, Scorer, digest_of, hash_of, seed_of
from ..records import Result

_CHUNK: Final = 2_000
_SCORES: Final = ("score", "docking_score", "vina_score", "value", "energy")


@dataclass(frozen=True, kw_only=True, slots=True)
class FileObjective(Objective):
    """Scores by molecule. Of the table, only the molecule's own line travels to a worker.

    Molecules that the file does not hold, or holds without a number, have no score: the status ``dock``.
    """

    file: str
    """Its name, for readers."""
    keys: bytes
    """Sorted hashes (``uint64``) of canonical SMILES."""
    scores: bytes
    """``float64``, in the same order."""
    table: str
    """Short name of the whole table."""
    maximize: bool = False
    """Whether more is better. Scores are better when lower, so they are then the negative of what the file says."""
    limits: Limits = field(default_factory=Limits)

    isolated: ClassVar[bool] = False

    @classmethod
    def of(
        cls, path: Path, *, score_column: str | None = None, smiles_column: str | None = None, maximize: bool = False
    ) -> FileObjective:
        """Read a file with the columns ``smiles`` and ``score``, packed or not, in local processes.

        Of a molecule that stands there more than once, the first line with a score counts.

        Args:
            path: ``.csv`` or ``.csv.gz``.
            score_column: by default the one headed ``score``.
            smiles_column: by default the one headed ``smiles``.
            maximize: whether more is better.

        Raises:
            ConfigurationError: the file cannot be read, or holds no score.
        """
        from ...sandbox.pool import Spoilt, in_processes  # noqa: PLC0415 - needed to read only
        from ..chemistry.molecules import canonical_hashes  # noqa: PLC0415 - loads RDKit

        keys: list[NDArray[np.uint64]] = []
        scores: list[float] = []

        def chunks() -> Iterator[list[str]]:
            pairs = _pairs(path, smiles_column, score_column)
            while chunk := list(islice(pairs, _CHUNK)):
                scores.extend(score for _, score in chunk)
                yield [smiles for smiles, _ in chunk]

        mapped = in_processes(canonical_hashes, chunks(), processes=os.cpu_count() or 1, timeout=120, alone=5)
        with closing(mapped) as found:
            keys.extend(np.zeros(1, np.uint64) if isinstance(one, Spoilt) else one for one in found)
        known, values = np.concatenate([np.empty(0, np.uint64), *keys]), np.array(scores, np.float64)
        readable = (known != 0) & np.isfinite(values)
        known, first = np.unique(known[readable], return_index=True)
        values = values[readable][first]
        if not len(known):
            raise ConfigurationError(f"{path.name} has no molecule with a score. Write the columns smiles and score.")
        whole = cls(file=path.name, keys=known.tobytes(), scores=values.tobytes(), table="", maximize=maximize)
        return replace(whole, table=digest_of({}, repr(hash_of(whole.keys.hex() + whole.scores.hex()))))

    @property
    def name(self) -> str:
        """For readers."""
        return f"score of {self.file}"

    def settings(self) -> dict[str, object]:
        """All that decides the score."""
        return {"objective": self.name, "table": self.table, "maximize": self.maximize}

    def __len__(self) -> int:
        return len(self.keys) // 8

    def scores_of(self, hashes: NDArray[np.uint64]) -> NDArray[np.float64]:
        """Return the scores of a batch of molecules, lower is better; NaN for a molecule without one.

        Args:
            hashes: of canonical SMILES, such as `Candidates.hashes`.
        """
        keys, scores = np.frombuffer(self.keys, np.uint64), np.frombuffer(self.scores, np.float64)
        if not len(keys):
            return np.full(len(hashes), np.nan)
        places = np.minimum(np.searchsorted(keys, hashes), len(keys) - 1)
        found: NDArray[np.float64] = np.where(keys[places] == hashes, self.sign * scores[places], np.nan)
        return found

    def part_for(self, smiles: str) -> FileObjective:
        """The molecule's own line; of a molecule without one, an empty part."""
        keys = np.frombuffer(self.keys, np.uint64)
        place = int(np.searchsorted(keys, key := np.uint64(hash_of(smiles))))
        there = slice(8 * place, 8 * place + 8 if place < len(keys) and keys[place] == key else 8 * place)
        return replace(self, keys=self.keys[there], scores=self.scores[there])

    def scorer(self) -> Scorer:
        """Nothing is loaded."""
        return self._score

    def _score(self, smiles: str) -> Result:
        score = float(self.scores_of(np.array([hash_of(smiles)], np.uint64))[0])
        if math.isnan(score):
            raise Refused("dock", f"{self.file} holds no score of it.")
        return Result(status="ok", score=score, seed=seed_of(smiles))


def _pairs(path: Path, smiles_column: str | None, score_column: str | None) -> Iterator[tuple[str, float]]:
    """SMILES and score of each line; NaN if there is none."""
    try:
        with _opened(path) as lines:
            rows = csv.reader(line.replace("\0", "") for line in lines)
            header = [title.strip().lower() for title in next(rows, [])]
            smiles = _place(header, (smiles_column or "smiles",), path, "--smiles-column")
            score = _place(header, (score_column,) if score_column else _SCORES, path, "--score-column")
            for row in rows:
                if len(row) > smiles:
                    yield row[smiles].strip(), _number(row[score]) if len(row) > score else math.nan
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise ConfigurationError(f"The scores {path} cannot be read: {error}.") from error


def _opened(path: Path) -> IO[str]:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="replace", newline="")
    return path.open(encoding="utf-8-sig", errors="replace", newline="")


def _place(header: list[str], wanted: tuple[str, ...], path: Path, option: str) -> int:
    for name in wanted:
        if name.strip().lower() in header:
            return header.index(name.strip().lower())
    raise ConfigurationError(
        f'{path.name} has no column "{wanted[0]}". Name one of its columns with {option}: {", ".join(header)}.'
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
