"""Floor 3: the report."""
