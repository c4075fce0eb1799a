"""Octopus transports (hosted Kafka); start with `transport`, or `rest` for HTTPS."""
