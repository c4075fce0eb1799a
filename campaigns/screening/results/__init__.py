"""The ledger of a campaign, and what is derived from it."""
