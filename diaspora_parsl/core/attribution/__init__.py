"""Failure attribution: whether a task or a place caused an error."""
