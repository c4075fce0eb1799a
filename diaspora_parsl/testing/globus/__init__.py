"""A Globus Compute service on this machine, for the unmodified SDK."""
