"""Floor 1: what a user writes, as Pydantic models, one file per recipe section, and the recipes that ship."""
