"""The process that fetches a job's model and data set from the Hub: the only one of a job that reaches the network.

Started as ``python -m worker.fetch SCRATCH PROGRESS_FD PARENT_PID``. It may write to the Hub's cache and to the attempt's
folder alone; of secrets it has the Hub's token, where the job's tenant may use it.
"""

from __future__ import annotations

import os
import sys
from typing import assert_never

from pruning_core.files.hub import Source, dataset_folder, model_folder
from pruning_core.report.progress import Progress
from worker import inside
from worker.inside import Tell
from worker.protocol import FetchRequest, Scratch


def main(arguments: list[str]) -> int:
    """Fetch what the scratch folder's request names."""
    return inside.do(arguments, _fetch)


def _fetch(scratch: Scratch, parent: int, tell: Tell) -> None:
    request = FetchRequest.model_validate_json(scratch.fetch.read_text(encoding="utf-8"))
    inside.confine(request.confinement, parent)
    os.environ["HF_HUB_CACHE"] = str(request.hub_cache)
    for count, source in enumerate(request.sources):
        tell(Progress(stage="load", step=count, total=len(request.sources) + 1))
        _fetch_one(source)


def _fetch_one(source: Source) -> None:
    match source.kind:
        case "model":
            model_folder(source.reference, source.revision, most_bytes=source.most_bytes)
        case "dataset":
            dataset_folder(source.reference, source.config, revision=source.revision, most_bytes=source.most_bytes)
        case _:
            assert_never(source.kind)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
