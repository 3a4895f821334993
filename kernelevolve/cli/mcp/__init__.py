"""The MCP server: what a coding agent drives searches with."""
