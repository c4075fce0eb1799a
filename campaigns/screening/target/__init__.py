"""Receptors, their ligands and their boxes."""
