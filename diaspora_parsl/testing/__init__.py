"""What users get to test resilience: simulated endpoints with faults, a simulator, local services, a pytest plugin.

`local_sites` runs real HTEX endpoints on this host, `faults` breaks them by script, and `simulation` runs the real core
in virtual time. Start with `pools`, which puts them together for one test.
"""
