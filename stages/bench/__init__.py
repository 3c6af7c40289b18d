"""Times every stage beside what the machine could do at most and beside the plain way."""
