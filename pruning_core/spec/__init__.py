"""The versioned request: what a job is asked to do. Torch-free."""

from pruning_core.spec.prune import PruneSpec

__all__ = ["PruneSpec"]
