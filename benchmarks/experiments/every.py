"""All experiments, in the order of the page."""

from __future__ import annotations

from benchmarks.experiments import (
    black_hole,
    doomed,
    environment,
    fabric,
    fabric_away,
    fabric_bridge,
    fabric_radio,
    fault_cost,
    fault_table,
    globus_faults,
    makespan,
    managers,
    overhead,
    stragglers,
    virtual,
)

EXPERIMENTS = {
    module.EXPERIMENT.name: module.EXPERIMENT
    for module in (
        fault_table,
        globus_faults,
        black_hole,
        environment,
        managers,
        doomed,
        makespan,
        fabric,
        fabric_away,
        fabric_bridge,
        fabric_radio,
        virtual,
        fault_cost,
        overhead,
        stragglers,
    )
}
