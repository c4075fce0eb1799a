"""The running pool: driver, endpoint instances, threads."""
