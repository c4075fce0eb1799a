"""Metrics and spans for other monitoring systems."""
