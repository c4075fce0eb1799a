"""Placement: which task goes to which endpoint, and when."""
