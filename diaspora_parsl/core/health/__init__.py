"""Health of endpoints and nodes: evidence, suspicion, circuit breakers and one verdict with its reason.

Only this package writes `evidence.Health`; a query never changes it. Start with `assessor`, which combines the parts.
"""
