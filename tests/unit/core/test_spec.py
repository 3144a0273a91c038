import json

import jsonschema
import pytest
from pydantic import ValidationError

from pruning_core.report.progress import STAGES, Progress
from pruning_core.spec.glue import GLUE_TASKS
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.targets import target_name

BASE = {"model": "org/name", "task": "glue/sst2", "sparsity": 0.5}


def test_shorthand_expands_to_the_full_form():
    spec = PruneSpec.model_validate(BASE | {"method": "magnitude", "data": "/data"})
    assert spec.target.model_dump() == {"metric": "sparsity", "sparsity": 0.5, "tolerance": 0.01}
    assert spec.task.columns.text == ("sentence",)
    assert spec.task.dataset == "/data"
    assert spec.method.name == "magnitude"


def test_full_form_survives_json():
    spec = PruneSpec.model_validate(BASE)
    assert PruneSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize("name", sorted(GLUE_TASKS))
def test_every_glue_task_makes_a_valid_spec(name):
    assert PruneSpec.model_validate(BASE | {"task": name}).task.name == name


@pytest.mark.parametrize(
    ("change", "where", "says"),
    [
        ({"sparsity": 0}, ("target", "sparsity", "sparsity"), "must be > 0 and < 1, got 0"),
        ({"sparsity": 1}, ("target", "sparsity", "sparsity"), "must be > 0 and < 1, got 1"),
        ({"sparsity": -1}, ("target", "sparsity", "sparsity"), "must be > 0 and < 1, got -1"),
        ({"sparsity": float("nan")}, ("target", "sparsity", "sparsity"), "must be > 0 and < 1, got nan"),
        ({"sparsity": "half"}, ("target", "sparsity", "sparsity"), "must be a number > 0 and < 1, got text"),
        ({"sparsity": True}, ("target", "sparsity", "sparsity"), "must be a number > 0 and < 1, got a bool"),
        ({"sparsity": None}, ("target", "sparsity", "sparsity"), "must be a number"),
        ({"target": {"metric": "macs", "keep": 0.5}}, (), "either sparsity or target"),
        ({"method": "obs"}, ("method",), "known methods are fisher-cg, admm-pattern, block-lasso, magnitude, random"),
        ({"task": "glue/xyz"}, ("task",), "known names are glue/cola"),
        ({"model": ""}, ("model",), "at least 1 character"),
        ({"sedd": 1}, ("sedd",), "Extra inputs"),
        ({"seed": -1}, ("seed",), "greater than or equal to 0"),
    ],
)
def test_bad_input_says_where_and_what_would_be_right(change, where, says):
    with pytest.raises(ValidationError) as caught:
        PruneSpec.model_validate(BASE | change)
    errors = caught.value.errors()
    assert any(error["loc"] == where and says in error["msg"] for error in errors), errors


def test_metric_must_fit_the_task_type():
    task = {"type": "regression", "dataset": "d", "columns": {"text": ["a"], "label": "y"}, "metric": "accuracy"}
    with pytest.raises(ValidationError, match="metric of a regression task must be one of spearman"):
        PruneSpec.model_validate(BASE | {"task": task})


def test_columns_may_be_left_out_and_are_guessed_later():
    task = {"type": "text-classification", "dataset": "d", "metric": "accuracy"}
    for columns in ({}, {"columns": {}}, {"columns": {"text": ["a"]}}, {"columns": {"label": "a"}}):
        assert PruneSpec.model_validate(BASE | {"task": task | columns}).task.columns.image is None
    with pytest.raises(ValidationError, match="text, one or two, or image, and not both"):
        PruneSpec.model_validate(BASE | {"task": task | {"columns": {"text": ["a"], "image": "b"}}})


def test_json_schema_accepts_what_validation_accepts():
    schema = PruneSpec.model_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    full = json.loads(PruneSpec.model_validate(BASE).model_dump_json())
    for document in (BASE, BASE | {"data": "/d"}, full):
        jsonschema.validate(document, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"model": "a", "task": "glue/sst2"}, schema)


MACS = {"metric": "macs", "keep": 0.5}
MORE = {key: value for key, value in BASE.items() if key != "sparsity"}


def test_several_targets_keep_their_order():
    targets = [{"metric": "latency", "keep": 0.4}, MACS, {"metric": "sparsity", "sparsity": 0.7}]
    spec = PruneSpec.model_validate(MORE | {"targets": targets})
    assert [target_name(target) for target in spec.all_targets] == ["latency-0.4", "macs-0.5", "sparsity-0.7"]
    assert PruneSpec.model_validate_json(spec.model_dump_json()) == spec
    assert PruneSpec.model_validate(BASE).all_targets == (PruneSpec.model_validate(BASE).target,)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (MORE, "give one target, or a list of targets"),
        (MORE | {"targets": []}, "give one target, or a list of targets"),
        (MORE | {"targets": [MACS], "target": MACS}, "not both"),
        (MORE | {"targets": [MACS, MACS]}, "must differ"),
        (MORE | {"targets": [{"metric": "macs", "keep": i / 20} for i in range(1, 18)]}, "at most 16"),
        (MORE | {"target": {"metric": "latency", "keep": 2}}, "must be > 0 and < 1, got 2"),
    ],
)
def test_targets_are_said_in_one_way(fields, says):
    with pytest.raises(ValidationError, match=says):
        PruneSpec.model_validate(fields)


def test_progress_fraction_only_grows():
    first, behind = STAGES.index("search"), STAGES.index("latency") + 1
    shared, own, last = STAGES[:first], STAGES[first:behind], STAGES[behind:]
    order = [(stage, 0) for stage in shared] + [(stage, part) for part in range(3) for stage in own]
    order += [(stage, 2) for stage in last]
    fractions = [
        Progress(stage=stage, step=step, total=4, part=part, parts=3).fraction for stage, part in order for step in range(5)
    ]
    assert fractions == pytest.approx(sorted(fractions))
    assert fractions[0] == 0
    assert fractions[-1] == pytest.approx(1)
