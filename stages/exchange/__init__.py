"""What comes into a workspace from elsewhere, and goes out of it: `wm import`, `wm export`."""
