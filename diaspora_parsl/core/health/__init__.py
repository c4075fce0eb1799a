"""How alive an endpoint is: suspicion, breaker, and one verdict with reasons."""
