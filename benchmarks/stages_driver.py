"""The process of one job for `benchmarks.stages`: ``coppice run`` by a tree's own code, its stages in seconds of the processor.

This is a script, not a module to import: ``python -P stages_driver.py ARGUMENTS``, with the tree first on PYTHONPATH. Seconds
are those of this process and of the children that it has waited for: other processes of a busy machine don't count.
"""

from __future__ import annotations

import os
import sys


def processor_seconds() -> float:
    """Return the user and system seconds of this process and of its ended children."""
    return sum(os.times()[:4])


def main() -> None:
    """Run the command line with another clock of stages."""
    import coppice.cli
    from pruning_core.evidence.clock import StageClock

    StageClock.__init__.__defaults__ = (processor_seconds,)
    sys.exit(coppice.cli.app(["run", *sys.argv[1:]], standalone_mode=False) or 0)


if __name__ == "__main__":
    main()
