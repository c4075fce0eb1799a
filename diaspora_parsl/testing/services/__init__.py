"""Services on this host for tests: Slurm, Kafka, a TCP proxy, and fakes of Octopus and diaspora-stream.

Each class starts its service as a context manager; `why_not` returns why the service cannot run on this host.
"""
