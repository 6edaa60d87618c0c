"""Doors for others: tools over MCP, graphs over LangGraph's REST server."""
