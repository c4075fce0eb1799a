"""Implementations of the fabric protocol."""
