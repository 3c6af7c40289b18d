"""Typed configuration: what may be set, by whom it was set, and recipes that set it."""
