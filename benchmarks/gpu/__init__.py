"""``make gpu``: one prepared run for a machine with a GPU that may be at hand for minutes, and that no registry reaches."""
