"""The event fabric: one protocol, one folder per transport.

`base` defines the protocol and opens a fabric by its URL. `publisher` and `consumer` handle outages, and `bridge`
connects the fabrics of sites. Start with `base`.
"""
