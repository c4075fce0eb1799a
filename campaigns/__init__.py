"""Real science on the pool, written as any user would write it.

`screening` chooses molecules and docks them. `parsl_configs`, `orphans` and `sandbox` serve every application. Start
with `screening/session`.
"""

from __future__ import annotations

if __name__ != "diaspora_parsl.campaigns":
    raise ImportError("import diaspora_parsl.campaigns, not campaigns")
