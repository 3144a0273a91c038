"""The versioned result of a pruning job. Torch-free."""

from pruning_core.report.report import Report

__all__ = ["Report"]
