"""Placement: which waiting task goes to which endpoint, and when.

Tasks are bound late: filters exclude endpoints with a reason, and the load model orders the rest. Start with
`scheduler`.
"""
