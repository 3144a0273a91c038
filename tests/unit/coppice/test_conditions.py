"""Conditions of ``--fail-if`` on how sure a difference is."""

import json
from pathlib import Path

import pytest
from typer import Exit

from coppice.commands.options import JobOptions
from coppice.conditions import NotJudged, parse
from coppice.console import ExitCode, show
from coppice.mlflow_log import metrics_of
from coppice.requests import job_body
from pruning_core.report.also import AlsoReport
from pruning_core.report.quality import DifferenceReport, FloorReport
from pruning_core.report.report import Report
from tests.unit.app.sample import REPORT
from tests.unit.coppice.conftest import Live
from tests.unit.coppice.test_cli import _job, call


def _report(low: float, high: float, *, lower_is_better: bool = False) -> Report:
    report = Report.model_validate(REPORT)
    found = DifferenceReport(value=(low + high) / 2, low=low, high=high, confidence=0.95, p_value=0.04, test="permutation")
    return report.but(quality=report.quality.but(difference=found, lower_is_better=lower_is_better))


@pytest.mark.parametrize(
    ("condition", "low", "high", "holds"),
    [
        ("surely_worse>0.01", -0.03, -0.011, True),
        ("surely_worse>0.01", -0.03, -0.005, False),
        ("may_be_worse>0.01", -0.03, -0.005, True),
        ("may_be_worse>0.01", -0.009, 0.005, False),
        ("surely_worse>0", -0.001, 0.001, False),
        ("may_be_worse>=0", 0.001, 0.002, False),
    ],
)
def test_sure_and_possible_losses_are_conditions_of_their_own(condition: str, low: float, high: float, holds: bool) -> None:
    assert parse(condition).holds(_report(low, high)) == holds
    less = _report(-high, -low, lower_is_better=True)  # as much worse, by a metric of which less is better
    assert parse(condition).holds(less) == holds


def test_a_drop_is_a_loss_of_quality_whichever_direction_is_better() -> None:
    more = _report(-0.03, -0.011)
    less = more.but(quality=more.quality.but(metric="perplexity", dense=20.0, pruned=24.0, lower_is_better=True))
    assert parse("drop>0.005").value(more) == pytest.approx(0.01)
    assert parse("drop>3.9").holds(less)
    assert not parse("drop>4.1").holds(less)
    better = less.but(quality=less.quality.but(pruned=19.0))
    assert parse("drop>0.01").value(better) == -1, "a perplexity that fell is no loss"


def test_a_report_without_an_interval_is_not_judged_in_silence() -> None:
    earlier = Report.model_validate(REPORT)
    with pytest.raises(NotJudged, match="made by an earlier version"):
        parse("may_be_worse>0.5").holds(earlier)
    few = earlier.but(quality=earlier.quality.but(no_interval="9 rows are too few, an interval needs 10"))
    with pytest.raises(NotJudged, match="9 rows are too few"):
        parse("surely_worse>0.5").holds(few)


def test_the_command_fails_where_it_cannot_judge(live: Live, tmp_path: Path) -> None:
    at = ("--url", live.url)
    call("prune", *_job(live, tmp_path), *at, "--no-wait", "--job-id", "one")
    live.succeed()
    told = call("report", "one", *at, "--fail-if", "may_be_worse>0.01")
    assert told.exit_code == ExitCode.BAD_INPUT
    assert "cannot be judged: the report has no interval of the difference" in told.stderr


def test_a_floor_may_be_asked_for_with_a_confidence() -> None:
    given = {"model": "org/name", "task": "glue/sst2", "data": "org/data"}
    spec = JobOptions(**given, quality_floor=0.99, floor_confidence=0.95).to_spec()
    assert spec.quality_floor is not None
    assert (spec.quality_floor.value, spec.quality_floor.confidence) == (0.99, 0.95)
    plain = JobOptions(**given, quality_floor=0.99).to_spec().model_dump(mode="json")
    assert "confidence" not in plain["quality_floor"], "specs without it stay as they were"
    assert "examples" not in plain["evaluation"]
    with pytest.raises(Exit):
        JobOptions(**given, macs_keep=[0.5], floor_confidence=0.95).to_spec()


def test_conditions_of_a_further_set() -> None:
    whole = _report(0.001, 0.002)
    of_set = _report(-0.03, -0.011).quality
    sets = (
        AlsoReport(name="my-reviews", task="text-classification", metric="accuracy", samples=10, quality=of_set),
        AlsoReport(name="odd", task="text-classification", metric="accuracy", samples=1, reason="its scores are all alike"),
    )
    report = whole.but(also=sets)
    assert parse("my-reviews.surely_worse>0.01").holds(report)
    assert not parse("surely_worse>0.01").holds(report)
    assert str(parse(" my-reviews.drop >= 0.5 ")) == "my-reviews.drop>=0.5"
    with pytest.raises(NotJudged, match="no evaluation set reviews; it has my-reviews, odd; did you mean my-reviews"):
        parse("reviews.drop>0").holds(report)
    with pytest.raises(NotJudged, match=r"it has none: evaluation\.also names them"):
        parse("reviews.drop>0").holds(whole)
    with pytest.raises(NotJudged, match="odd was not judged: its scores are all alike"):
        parse("odd.drop>0").holds(report)
    with pytest.raises(ValueError, match="of an evaluation set there are drop, surely_worse, may_be_worse, quality"):
        parse("my-reviews.speedup>1")


def test_a_condition_on_a_set_that_the_request_lacks_is_refused_before_the_work(live: Live, tmp_path: Path) -> None:
    spec = _job(live, tmp_path)[1]
    asked = json.loads(Path(spec).read_text(encoding="utf-8"))
    asked["evaluation"]["also"] = [{"name": name, "split": "train"} for name in ("my-reviews", "news")]
    Path(spec).write_text(json.dumps(asked), encoding="utf-8")

    def refused(condition: str) -> str:
        out = tmp_path / "out"
        told = call("prune", "--spec", spec, "--url", live.url, "--out", out, "--job-id", "no", "--fail-if", condition)
        assert told.exit_code == ExitCode.BAD_INPUT, told.output
        assert not out.exists()
        assert call("jobs", "show", "no", "--url", live.url).exit_code == ExitCode.BAD_INPUT, "nothing was submitted"
        return " ".join(told.stderr.split())

    there = "the request has no evaluation set reviews; it has my-reviews, news; did you mean my-reviews?"
    assert f"--fail-if reviews.drop>0.01: {there}" in refused("reviews.drop>0.01")
    del asked["evaluation"]["also"]
    Path(spec).write_text(json.dumps(asked), encoding="utf-8")
    assert "it has none: evaluation.also names them" in refused("news.quality<0.5")


def test_the_floor_has_a_line_with_what_it_is_judged_by(capsys: pytest.CaptureFixture[str]) -> None:
    floor = FloorReport(kind="relative", requested=0.99, required=0.891, achieved=0.9)
    show(_report(-0.01, 0.01).but(quality_floor=floor))
    assert "quality floor: accuracy at least 0.8910, held\n" in capsys.readouterr().out
    sure = floor.but(confidence=0.95, bound=0.8712)
    show(_report(-0.01, 0.01).but(quality_floor=sure))
    line = "quality floor: accuracy at least 0.8910, missed; judged by the lower end of its 95 % interval, 0.8712\n"
    assert line in capsys.readouterr().out
    less = sure.but(lower_is_better=True, required=20.0, bound=19.5)
    show(_report(-0.01, 0.01).but(quality_floor=less))
    assert "at most 20.0000, held; judged by the upper end of its 95 % interval, 19.5000\n" in capsys.readouterr().out


def test_figures_of_a_further_set_are_logged_under_its_name() -> None:
    of_set = _report(-0.03, -0.011).quality
    own = AlsoReport(name="reviews", task="text-classification", metric="accuracy", samples=10, quality=of_set)
    found = metrics_of(Report.model_validate(REPORT).but(also=(own,)))
    assert found["also.reviews.pruned.accuracy"] == of_set.pruned
    assert found["also.reviews.difference.low"] == -0.03
    assert "difference.low" not in found


def test_options_and_arguments_name_slices_and_sets(tmp_path: Path) -> None:
    given = {"model": "org/name", "task": "glue/sst2", "data": "org/data", "sparsity": [0.5]}
    data = tmp_path / "reviews.csv"
    data.touch()
    spec = JobOptions(**given, slices=["source"], also=[f"reviews={data}", "hub=org/other"]).to_spec()
    assert spec.evaluation.slices == ("source",)
    assert [(own.name, own.data) for own in spec.evaluation.also] == [("reviews", str(data)), ("hub", "org/other")]
    with pytest.raises(Exit):
        JobOptions(**given, also=["reviews"]).to_spec()
    file = tmp_path / "spec.json"
    in_file = {"also": [{"name": "first", "data": "org/first"}], "max_samples": 7}
    file.write_text(json.dumps({"model": "org/name", "task": "glue/sst2", "sparsity": 0.5, "evaluation": in_file}))
    both = JobOptions(spec=file, also=["hub=org/other"]).to_spec().evaluation
    assert ([own.name for own in both.also], both.max_samples) == (["first", "hub"], 7)
    nothing = dict.fromkeys(("sparsity", "target", "data", "method", "name", "tags", "metadata", "priority"))
    body = job_body("m", "t", **nothing, slices=["a"], also=None, options={"evaluation": {"max_samples": 3}})
    assert body == {"model": "m", "task": "t", "evaluation": {"max_samples": 3, "slices": ["a"]}}


def test_the_ledger_and_quoted_rows_have_options(tmp_path: Path) -> None:
    task = {"type": "text-generation", "metric": "perplexity", "columns": {"text": ["text"]}}
    held = {"evaluation": {"max_length": 64, "ledger": {"items": 24, "texts": {"prose": "/p.txt"}}}}
    spec = {"model": "org/name", "task": task, "data": "org/data", "target": {"metric": "macs", "keep": 0.5}}
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(spec | held), encoding="utf-8")
    kept = JobOptions(spec=file, ledger=True, examples=0).to_spec().evaluation
    assert (kept.examples, kept.max_length, kept.ledger) == (0, 64, JobOptions(spec=file).to_spec().evaluation.ledger)
    more = JobOptions(spec=file, ledger_texts=["german=de.txt"]).to_spec().evaluation.ledger
    assert more is not None
    assert (more.items, more.texts) == (24, {"german": str(Path("de.txt").absolute()), "prose": "/p.txt"})
    file.write_text(json.dumps(spec), encoding="utf-8")
    assert JobOptions(spec=file).to_spec().evaluation.ledger is None
    made = JobOptions(spec=file, ledger=True).to_spec().evaluation.ledger
    assert made is not None
    assert made.texts == {}
    with pytest.raises(Exit):
        JobOptions(spec=file, ledger_texts=["german"]).to_spec()
