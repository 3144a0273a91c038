"""Structured peers, a module each, written from their papers."""
