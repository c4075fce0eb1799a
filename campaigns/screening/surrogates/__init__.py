"""Surrogate models of the scores."""
