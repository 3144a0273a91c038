"""Labelled tasks that no default was chosen on, made from Debian packages and fine-tuned here."""
