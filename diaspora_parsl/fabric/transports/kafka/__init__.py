"""Kafka transport; start with `transport`."""
