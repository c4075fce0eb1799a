"""The event fabric: one protocol, one file per transport."""
