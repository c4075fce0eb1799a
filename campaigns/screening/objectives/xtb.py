"""Properties of electrons by xTB, semi-empirical quantum chemistry: seconds per molecule, no parameters to set up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from diaspora_parsl.errors import ConfigurationError

from ..chemistry.shape import embed, parse
from ..objective import Limits, Objective, Refused, Scope, Scorer
from ..records import Result

Quantity = Literal["gap", "homo", "lumo", "energy_per_atom"]
Method = Literal["GFN2-xTB", "GFN1-xTB"]

_NAMES: Final[dict[Quantity, str]] = {
    "gap": "HOMO-LUMO gap",
    "homo": "HOMO energy",
    "lumo": "LUMO energy",
    "energy_per_atom": "energy per atom",
}
#: CODATA 2018.
_BOHR: Final = 0.529177210903  # Å
_HARTREE: Final = 27.211386245988  # eV


@dataclass(frozen=True, kw_only=True, slots=True)
class XtbObjective(Objective):
    """A property of one conformer (ETKDG, relaxed by MMFF94) by xTB, in eV.

    Method: Bannwarth, Ehlert & Grimme 2019, J. Chem. Theory Comput. 15, 1652 (GFN2-xTB), by the library tblite.
    """

    quantity: Quantity = "gap"
    method: Method = "GFN2-xTB"
    maximize: bool = False
    """Whether more is better. Scores are better when lower, so they are then the negative of the quantity."""
    max_heavy_atoms: int = 80
    """The cost grows with the third power."""
    limits: Limits = field(default_factory=Limits)

    unit = "eV"

    def __post_init__(self) -> None:
        if self.quantity not in _NAMES:
            raise ConfigurationError(f'xTB is not asked for "{self.quantity}". Write one of {", ".join(_NAMES)}.')

    @property
    def name(self) -> str:
        """The quantity, for readers."""
        return _NAMES[self.quantity]

    @property
    def scope(self) -> Scope:
        """All elements up to radon have parameters."""
        return Scope(max_heavy_atoms=self.max_heavy_atoms)

    def settings(self) -> dict[str, object]:
        """All that decides the score."""
        return {
            "objective": f"{self.name} by {self.method}",
            "maximize": self.maximize,
            "max_heavy_atoms": self.max_heavy_atoms,
            "timeout": self.limits.timeout,
            "memory": self.limits.memory,
        }

    def scorer(self) -> Scorer:
        """Import tblite.

        Raises:
            ImportError: it is not installed here.
        """
        import tblite.interface  # noqa: F401, PLC0415 - a place that lacks it shall say so before the first molecule

        return self._score

    def _score(self, smiles: str) -> Result:
        import numpy as np  # noqa: PLC0415 - slow
        from tblite.interface import Calculator  # noqa: PLC0415 - slow

        molecule = parse(smiles, self.scope, code=self.method)
        solid, seed = embed(molecule)
        numbers = np.array([atom.GetAtomicNum() for atom in solid.GetAtoms()])
        charge = sum(atom.GetFormalCharge() for atom in solid.GetAtoms())
        unpaired = sum(atom.GetNumRadicalElectrons() for atom in solid.GetAtoms())
        try:
            calculator = Calculator(
                self.method, numbers, solid.GetConformer().GetPositions() / _BOHR, charge=charge, uhf=unpaired
            )
            calculator.set("verbosity", 0)
            found = calculator.singlepoint()
            if self.quantity == "energy_per_atom":
                value = float(found["energy"]) / len(numbers)
            else:
                value = _orbital(self.quantity, found["orbital-energies"], found["orbital-occupations"])
        except (RuntimeError, ValueError, TypeError) as error:  # what tblite raises, and no more of its own
            raise Refused("dock", " ".join(f"tblite: {error}".split())[:500]) from error
        # The last digits differ between builds of the linear algebra; scores must not.
        return Result(status="ok", score=self.sign * round(value * _HARTREE, 4), seed=seed)


def _orbital(quantity: Quantity, energies: object, occupations: object) -> float:
    """Energy of the highest occupied or lowest empty orbital, or the gap between them, in Hartree."""
    import numpy as np  # noqa: PLC0415 - slow

    levels, filled = np.ravel(np.asarray(energies)), np.ravel(np.asarray(occupations)) > 1.0
    if not filled.any() or filled.all():
        raise ValueError("there is no gap between filled and empty orbitals")
    homo, lumo = float(levels[filled].max()), float(levels[~filled].min())
    return {"gap": lumo - homo, "homo": homo, "lumo": lumo}[quantity]
