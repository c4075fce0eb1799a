"""Redis and Valkey, and the embedded server."""
