"""Real science on the pool: AI-guided molecule screening."""

if __name__ != "diaspora_parsl.campaigns":
    raise ImportError("import diaspora_parsl.campaigns, not campaigns")
