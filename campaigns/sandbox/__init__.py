"""Child processes for code that crashes, hangs or takes all memory."""
