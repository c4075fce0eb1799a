"""What observes and what shows: node agents, live view, exporter, and Parsl's monitoring on the fabric.

`agent` publishes heartbeats and metrics of a node, `view` folds events into the state of a fabric and renders it, and
`exporter` serves metrics and spans. Start with `view/fabric_state`.
"""

if __name__ != "diaspora_parsl.monitors":
    raise ImportError("import diaspora_parsl.monitors, not monitors")
