"""What watches and what shows: agents on nodes, the live view, the event printer."""

if __name__ != "diaspora_parsl.monitors":
    raise ImportError("import diaspora_parsl.monitors, not monitors")
