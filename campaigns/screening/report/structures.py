"""Pictures of molecules as SVG."""

from __future__ import annotations

import re

from rdkit import Chem
from rdkit.Chem.Draw import rdMolDraw2D


def structure(smiles: str, width: int = 280, height: int = 190) -> str:
    """The structural formula as an ``<svg>`` element that scales with its place, on a transparent ground."""
    drawer = rdMolDraw2D.MolDraw2DSVG(width, height)
    options = drawer.drawOptions()
    options.clearBackground = False
    options.padding = 0.06
    options.bondLineWidth = 1.6
    options.fixedBondLength = 26  # small molecules are not blown up
    rdMolDraw2D.PrepareAndDrawMolecule(drawer, Chem.MolFromSmiles(smiles))
    drawer.FinishDrawing()
    svg = drawer.GetDrawingText()
    svg = svg[svg.index("<svg") :]
    return re.sub(r"width='\d+px' height='\d+px'", "aria-hidden='true'", svg, count=1)
