"""Real science on the pool, as any user would write it."""

from __future__ import annotations

if __name__ != "diaspora_parsl.campaigns":
    raise ImportError("import diaspora_parsl.campaigns, not campaigns")
