"""The event fabric: one protocol, one folder per transport.

`base` defines the protocol and opens a fabric by its URL; `publisher` and `consumer` keep outages away from their
owners. `bridge` joins the fabrics of sites into a tree. Start with `base`.
"""
