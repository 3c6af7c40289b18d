"""Slow obvious twins of the fast code, in numpy alone: written to be read, then compared with."""
