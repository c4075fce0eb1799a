"""The Parsl side of the pool: the executor that a `Config` takes, and its endpoints.

`pool` is the drop-in executor and `endpoint` describes one member; `runtime` runs the driver and the endpoint
instances, and `parsl` holds everything that is private of Parsl. Start with `pool`.
"""

if __name__ != "diaspora_parsl.executors":
    raise ImportError("import diaspora_parsl.executors, not executors")
