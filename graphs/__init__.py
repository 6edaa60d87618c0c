"""Floor 4: the agents as LangGraph graphs, and the run that strings them together."""
