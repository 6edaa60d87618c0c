"""What the agents' graphs do, as tools of LangChain: thin faces, no second implementation."""
