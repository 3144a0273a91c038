"""Cases as users bring them: a folder each, with a run.sh that tries the command line, and what must come of it."""
