"""For tests, demos and CI: a virtual-time simulator, fault scripts, local simulated endpoints."""
