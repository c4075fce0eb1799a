"""Redis and Valkey transport, and the embedded server; start with `transport`."""
