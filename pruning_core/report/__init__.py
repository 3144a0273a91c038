"""The versioned result: what a job achieved. Torch-free."""

from pruning_core.report.report import Report

__all__ = ["Report"]
