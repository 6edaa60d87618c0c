"""Floor 2: painters, judges and composers behind small Protocols."""
