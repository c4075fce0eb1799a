"""The Parsl side of the pool: the executor that a Config takes, and its endpoints."""

if __name__ != "diaspora_parsl.executors":
    raise ImportError("import diaspora_parsl.executors, not executors")
