"""Bridges between fabrics: `bridge` runs links, `config` reads ``site.toml``. Start with `bridge`."""
