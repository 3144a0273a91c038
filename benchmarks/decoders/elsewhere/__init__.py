"""Peers that are packages: scripts that run in environments of their own, and import nothing of ours."""
