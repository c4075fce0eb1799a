"""Runs the real pool core in virtual time, with simulated endpoints and scripted faults.

`scenario` defines endpoints, tasks and the report of a run, `simulator` runs them. Start with `simulator.Simulator`.
"""
