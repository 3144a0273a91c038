"""The benchmark of stages: the ratio of its goal, and its clock."""

from __future__ import annotations

import pytest

from benchmarks.same_trees import ROOT, TreeFailed
from benchmarks.stages import Job, row_of, run_in
from tests import tiny


def report_of(**seconds):
    stages = dict.fromkeys(("score", "recover", "evaluate", "latency", "accept"), 0.0) | seconds
    return {"seconds": {"total": sum(stages.values()), "by_stage": stages}, "quality": {}, "latency_ms": {}}


def test_the_ratio_is_of_this_trees_judging_and_the_bases_pruning():
    base = [report_of(score=119, recover=84, evaluate=287, latency=148, accept=14)]
    new = [report_of(score=500, evaluate=own, latency=50, accept=14) for own in (139, 100, 900)]
    row = row_of(Job("any", {}), base, new)
    assert row["ratio"] == pytest.approx(1.0), "the median of 139, 100 and 900 with 50 and 14, by 119 + 84"
    assert row["ratio_before"] == pytest.approx(449 / 203)


@pytest.mark.long
def test_a_job_runs_by_its_trees_own_command_line_and_counts_the_processors_seconds(tiny_bert, tiny_sst2, tmp_path):
    spec = tiny.tiny_spec(tiny_bert, tiny_sst2).model_dump(mode="json")
    seconds = run_in(ROOT, Job("tiny", spec), tmp_path)["seconds"]
    assert sum(seconds["by_stage"].values()) <= seconds["total"]
    assert seconds["by_stage"]["accept"] > 0.5, "the process that proves it imports torch, and is counted"
    with pytest.raises(TreeFailed, match="ends tiny with"):
        run_in(ROOT, Job("tiny", spec | {"model": "/nowhere"}), tmp_path)
