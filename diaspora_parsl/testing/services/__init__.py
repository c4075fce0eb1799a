"""Real services on this machine, and fakes of those that cannot run here."""
