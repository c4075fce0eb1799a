"""Failure attribution: whether a task or the place where it ran caused a failure.

`failure_handler` acts on each failed attempt; `second_opinions` compares endpoints and `node_second_opinions` compares
nodes inside one endpoint. Start with `failure_handler`.
"""
