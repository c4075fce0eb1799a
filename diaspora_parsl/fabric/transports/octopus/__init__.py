"""Octopus."""
