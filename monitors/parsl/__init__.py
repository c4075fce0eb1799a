"""Parsl's own monitoring on the fabric."""
