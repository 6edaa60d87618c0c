"""Floor 2: what survives a run and a kill: artifacts and the ledger."""
