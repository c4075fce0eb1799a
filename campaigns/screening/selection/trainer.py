"""The fitter: surrogates are fitted in a process of their own, so that the campaign's own thread is never held up."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Final, Self

from diaspora_parsl.errors import ConfigurationError

from ...sandbox.pool import Child, FailedError, NotUsableError
from ..library.candidates import Candidates
from ..settings import Plan
from .selector import Lesson, Ranking, study

logger = logging.getLogger(__name__)

#: Seconds for one fit; then the kernel ends its process.
LIMIT: Final = 900.0
#: Fits that may fail one after the other; the old ranking serves meanwhile.
_FAILURES: Final = 3


class Fitter:
    """One fit at a time, in a process that is started when needed, replaced when it died, and ended with this object.

    Args:
        candidates: folder of their store, which the process maps into its memory.
        plan: how to fit and rank.
        limit: seconds for one fit.
    """

    def __init__(self, candidates: Path, plan: Plan, *, limit: float = LIMIT) -> None:
        self._candidates = candidates
        self._plan = plan
        self._limit = limit
        self._child = Child()
        self._thread = ThreadPoolExecutor(1, "surrogate")  # it waits for the process, and does nothing else
        # Its codes take seconds to load, while the random batch is docked.
        self._warm = self._thread.submit(self._child.call, warm, timeout=self._limit)
        self._fit: Future[Ranking] | None = None
        self._lesson: Lesson | None = None
        self._failures = 0
        self.began = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def busy(self) -> bool:
        """Whether a fit has been begun and not been fetched."""
        return self._fit is not None

    @property
    def pid(self) -> int | None:
        """Of the process, if there is one."""
        return self._child.pid

    def begin(self, lesson: Lesson) -> None:
        """Begin a fit."""
        self._lesson, self.began = lesson, time.time()
        self._fit = self._thread.submit(
            self._child.call, fit, self._candidates, self._plan, lesson, timeout=self._limit
        )

    def fetch(self) -> Ranking | None:
        """What came of the fit, None while it goes on; one that failed is begun again.

        Raises:
            ConfigurationError: several attempts, one after the other, failed; the message says why the last one did.
        """
        if self._fit is None or self._lesson is None or not self._fit.done():
            return None
        ended, self._fit = self._fit, None
        try:
            ranking = ended.result()
        except (FailedError, NotUsableError) as error:
            self._failures += 1
            reason = error.detail if isinstance(error, FailedError) else str(error)
            logger.warning("Fit %s of the surrogate failed: %s", self._lesson.number, reason)
            if self._failures >= _FAILURES:
                raise ConfigurationError(f"The surrogate cannot be fitted: {reason}") from error
            self.begin(self._lesson)
            return None
        self._failures = 0
        return ranking

    def close(self) -> None:
        """End the process and the thread, in the middle of a fit if need be; idempotent."""
        begun: list[Future[Any]] = [
            future for future in (self._warm, self._fit) if future is not None and not future.cancel()
        ]
        self._child.retire()
        while wait(begun, 0.1).not_done:
            self._child.retire()  # it was just being started
        self._thread.shutdown(cancel_futures=True)
        self._child.close()


def warm() -> None:
    """In the process: this module, and with it all that a fit needs, has been imported."""


def fit(folder: Path, plan: Plan, lesson: Lesson) -> Ranking:
    """In the process: fit, and rank the candidates."""
    candidates = Candidates(folder, processes=0)
    objective = plan.second_objective
    second = candidates.properties([objective.name])[:, 0] if objective is not None else None
    return study(candidates.fingerprints, plan, lesson, second)
