"""Shared by all tests; its place here puts `oracles` on the import path."""
