"""Placement: which waiting task goes to which endpoint, and when.

Tasks are bound late; filters say why a task must not run at an endpoint, and the load model orders the rest. Start
with `scheduler`.
"""
