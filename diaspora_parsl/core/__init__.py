"""The pool's decisions as a pure state machine: stimuli in, actions out; no clock, thread or wire.

`health` turns evidence into one verdict per endpoint, `placement` chooses where and when an attempt runs, and
`attribution` finds out whether a task or its endpoint caused a failure. Start with `machine`, whose docstring is the
theory of operation.
"""
