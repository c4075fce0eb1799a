"""Globus Compute endpoints as members of a pool."""
