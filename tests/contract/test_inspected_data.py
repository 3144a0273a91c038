"""A stranger's data is read in the limits of an inspection: Parquet and Arrow too, which pyarrow reads without a thread."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.inspection.process import _WITHOUT_THREADS

CHILD = """
import os, sys
from pathlib import Path
import pyarrow.ipc, pyarrow.parquet
from app.inspection.confinement import confine, gain_no_privileges, keep_to
from app.inspection.records import Limits
from app.inspection.work import answer_to
from pruning_core.data.opening import open_split
from pruning_core.errors import PruningError
from pruning_core.spec.prune import PruneSpec

threads = len(os.listdir("/proc/self/task"))
task = {"type": "text-classification", "dataset": sys.argv[1], "metric": "accuracy"}
task["columns"] = {"text": ["text"], "label": "label"}
task = PruneSpec.model_validate({"model": "m", "task": task, "sparsity": 0.5}).task
gain_no_privileges()
parent, child = os.getpid(), os.fork()
if child == 0:
    confine(Limits(2**28, 20, 60), parent)
    keep_to([Path(sys.argv[1])], [])
    for role in ("train", "validation"):
        try:
            print(threads, sum(1 for _ in open_split(task, role).rows(["text", "label"])), flush=True)
        except PruningError as error:
            print(threads, type(error).__name__, flush=True)
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def in_a_child(data: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(data)],
        env=os.environ | _WITHOUT_THREADS,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def write(folder: Path, form: str) -> None:
    rows = {"text": [f"word{i} " * 20 for i in range(5000)], "label": [i % 2 for i in range(5000)]}
    if form == "saved":
        both = datasets.DatasetDict({split: datasets.Dataset.from_dict(rows) for split in ("train", "validation")})
        both.save_to_disk(folder)
    for split in ("train", "validation") if form != "saved" else ():
        if form == "parquet":
            pq.write_table(pa.table(rows), folder / f"{split}.parquet")
        else:
            with pa.output_stream(str(folder / f"{split}.csv.zst"), compression="zstd") as file:
                file.write(("text,label\n" + "a,1\n" * 5000).encode())


@pytest.mark.parametrize("form", ["parquet", "saved", "csv.zst"])
def test_every_row_is_read_in_the_limits(form: str, tmp_path: Path) -> None:
    write(tmp_path, form)
    assert in_a_child(tmp_path) == ["1 5000"] * 2


def test_a_column_that_grows_beyond_the_limit_is_refused_and_nothing_dies(tmp_path: Path) -> None:
    """Two gigabytes of one text, in a few kilobytes."""
    text = pa.array(["x" * 2**20]).dictionary_encode()
    table = pa.table({"text": pa.chunked_array([text] * 2000), "label": [1] * 2000})
    for split in ("train", "validation"):
        pq.write_table(table, tmp_path / f"{split}.parquet", compression="zstd")
    found = in_a_child(tmp_path)
    assert all(line in ("1 2000", "1 OutOfMemory") for line in found), found
