"""Transports of the fabric, one folder or module each; `base.open_fabric` selects one by URL. Start with `memory`."""
