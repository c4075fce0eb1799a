"""Tools to test the resilience of a workflow: local endpoints, fault scripts, a simulator, a pytest plugin.

`local_sites` runs real HTEX endpoints on this host, `faults` breaks them by script, `simulation` runs the real core in
virtual time, `services` and `globus` emulate facilities. Start with `pools`, which combines them for one test.
"""
