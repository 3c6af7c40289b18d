"""Worlds, dreams and recordings that somebody plays: what is shown, and what is kept of it."""
