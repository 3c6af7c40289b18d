"""Trackers: what a stage measures and draws, in the tool of the user's choice."""
