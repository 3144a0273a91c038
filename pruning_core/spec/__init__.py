"""The versioned request of a pruning job. Torch-free."""

from pruning_core.spec.prune import PruneSpec

__all__ = ["PruneSpec"]
