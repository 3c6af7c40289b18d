"""Everything on disk: the workspace, its artifacts, and the formats of their files."""
