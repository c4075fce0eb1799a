"""Bridges between fabrics."""
