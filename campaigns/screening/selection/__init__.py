"""Selection of the next molecules."""
