"""Looks at workspaces and machines, and changes neither."""
