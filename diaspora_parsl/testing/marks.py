"""Parse ``@pytest.mark.faults(...)`` into a fault script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.testing.failure_report import spelled
from diaspora_parsl.testing.faults import script as f

_NEEDED: Final = frozenset({"count", "seconds", "endpoints"})
_KNOWN: Final = _NEEDED | {"seed", "kinds"}


def script_of(
    marks: Sequence[tuple[Sequence[object], Mapping[str, Any]]], seed: int | None = None
) -> tuple[f.FaultScript, int | None]:
    """Return the fault script of the marks of a test and its seed (None if no fault is drawn).

    Args:
        marks: Positional and keyword arguments of each mark: faults, and the arguments of `FaultScript.drawn`.
        seed: Seed that overrides the seed of the marks.

    Raises:
        ConfigurationError: A mark has other arguments.
    """
    script, used = f.FaultScript(), None
    for given, drawn in marks:
        wrong = [one for one in given if not isinstance(one, f.Fault)]
        if wrong or not (given or drawn):
            raise ConfigurationError(
                f"pytest.mark.faults({', '.join(map(repr, wrong))}): give faults, such as Kill(at=2, endpoint='alpha')"
            )
        script += f.FaultScript(tuple(one for one in given if isinstance(one, f.Fault)))
        if not drawn:
            continue
        if not _NEEDED <= set(drawn) <= _KNOWN:
            raise ConfigurationError(
                f"pytest.mark.faults({', '.join(f'{name}=...' for name in drawn)}): faults are drawn from "
                f"`count`, `seconds` and `endpoints`; `seed` and `kinds` may be given too"
            )
        used = drawn.get("seed", 0) if seed is None else seed
        rest = {name: value for name, value in drawn.items() if name not in {"seed", "endpoints"}}
        script += f.FaultScript.drawn(used, drawn["endpoints"], **rest)
    return script, used


def describe(script: f.FaultScript, seed: int | None) -> str:
    """Describe a script as arguments that can be copied into a mark, and the option that draws it again."""
    again = [] if seed is None else [f"seed {seed}; the same faults again: pytest --fault-seed {seed}"]
    return "\n".join([*again, *(f"{spelled(fault)}," for fault in script)])
