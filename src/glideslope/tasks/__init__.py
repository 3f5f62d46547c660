"""Tasks: what is trained. One family per file, found by name through the entry-point group `glideslope.tasks`."""
