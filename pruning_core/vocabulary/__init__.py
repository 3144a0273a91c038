"""Fewer tokens: which ones texts need, and a model's files without the others."""
