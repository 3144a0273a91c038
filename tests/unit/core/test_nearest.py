"""What a spec's errors teach: the nearest known name, and all that is wrong at once."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from app.jobs.schemas import JobCreate
from pruning_core.errors import DatasetInvalid, ModelUnreadable, PruningError, Several, each, together
from pruning_core.spec.messages import message_of
from pruning_core.spec.nearest import fields_at, nearest
from pruning_core.spec.prune import PruneSpec

GOOD: dict[str, Any] = {"model": "org/name", "task": "glue/sst2", "target": {"metric": "macs", "keep": 0.5}}
OWN: dict[str, Any] = {
    "type": "text-classification",
    "dataset": "org/d",
    "columns": {"text": ["a"], "label": "b"},
    "metric": "f1",
}


def said(body: dict[str, Any], model: type[PruneSpec] = PruneSpec) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(body)
    return {".".join(map(str, item["loc"])): message_of(item, model, item["loc"]) for item in caught.value.errors()}


@pytest.mark.parametrize(
    ("change", "where", "says"),
    [
        ({"seeed": 1}, "seeed", "is no known field; did you mean seed?"),
        ({"sparsty": 0.5}, "sparsty", "did you mean sparsity?"),
        ({"calibration": {"batch_tokns": 64}}, "calibration.batch_tokns", "did you mean batch_tokens?"),
        ({"samples": 64}, "samples", "is no known field here; did you mean calibration.samples?"),
        ({"calibration": {"zz": 1}}, "calibration.zz", "known are samples, sampling, max_length"),
        ({"target": {"metric": "macs", "kep": 0.5, "keep": 0.5}}, "target.macs.kep", "did you mean keep?"),
        ({"targets": [{"metric": "macs", "keep": 0.5, "tol": 1}]}, "targets.0.macs.tol", "known are metric, keep, tolerance"),
        ({"target": {"metric": "mac", "keep": 0.5}}, "target", "must have as metric one of sparsity, macs"),
        ({"target": {"metric": "mac", "keep": 0.5}}, "target", "did you mean macs?"),
        ({"target": {"keep": 0.5}}, "target", "must have a field metric"),
        ({"method": "fisher-gc"}, "method", "did you mean fisher-cg?"),
        ({"method": {"name": "fisher-cg", "rearange": True}}, "method.fisher-cg.rearange", "did you mean rearrange?"),
        ({"task": "sst2"}, "task", "did you mean glue/sst2?"),
        ({"task": "text-clasification"}, "task", 'did you mean {"type": "text-classification", ...}?'),
        ({"task": OWN | {"type": "text-clasification"}}, "task.type", "did you mean text-classification?"),
        ({"task": OWN | {"metric": "acuracy"}}, "task.metric", "did you mean accuracy?"),
        ({"task": OWN | {"columns": {"txt": ["a"]}}}, "task.columns.txt", "did you mean text?"),
        ({"artifacts": {"layout": "per-layer"}}, "artifacts.layout", "did you mean per_layer?"),
        ({"artifacts": {"formats": ["safetensors", "onx"]}}, "artifacts.formats.1", "did you mean onnx?"),
        ({"seed": "x"}, "seed", "must be a whole number"),
    ],
)
def test_the_nearest_known_name_is_said(change: dict[str, Any], where: str, says: str) -> None:
    assert says in said(GOOD | change)[where]


def test_a_field_of_a_job_is_known_where_jobs_are_made() -> None:
    assert said(GOOD | {"prioritty": 2}, JobCreate)["prioritty"] == "is no known field; did you mean priority?"
    assert "priority" not in said(GOOD | {"prioritty": 2})["prioritty"]


def test_nothing_like_it_is_said_to_be_like_it() -> None:
    assert nearest("zzz", ["seed", "model"]) is None
    assert nearest("", ["seed"]) is None
    assert nearest("s" * 10_000, ["seed"]) is None, "no time is spent on what is no word"
    assert nearest("SST2", ["glue/sst2", "glue/mnli"]) == "glue/sst2"
    assert "did you mean" not in said(GOOD | {"zzz": 1})["zzz"]
    assert fields_at(PruneSpec, ["metadata", "x"]) == ()


def test_all_that_does_not_fit_a_type_of_task_is_said_at_once() -> None:
    task = OWN | {"columns": {"image": "a"}, "metric": "bleu", "prefix": "x"}
    found = said(GOOD | {"task": task})
    assert set(found) == {"task.metric", "task.columns", "task.prefix"}
    assert "must be one of accuracy, f1, matthews" in found["task.metric"]
    assert "reads text columns" in found["task.columns"]


def test_all_that_does_not_fit_each_other_is_said_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        PruneSpec.model_validate(
            GOOD
            | {
                "targets": [GOOD["target"]] * 2,
                "memory": {"weights": "paged"},
                "artifacts": {"formats": ["safetensors", "onnx"]},
                "quality_floor": {"kind": "absolute", "value": 77},
            }
        )
    found = " | ".join(message_of(item) for item in caught.value.errors())
    for part in ("one target, or a list of targets, not both", "ONNX graph is made of the whole", "got 77", "must differ"):
        assert part in found


def test_several_errors_of_the_core_are_one_error_that_carries_them() -> None:
    def model() -> None:
        raise ModelUnreadable("no config.json", param="model")

    def data() -> None:
        raise DatasetInvalid("no train split", param="task.dataset")

    together([lambda: None])
    with pytest.raises(ModelUnreadable):
        together([model, lambda: None])
    with pytest.raises(PruningError) as caught:
        together([model, lambda: together([data, data])])
    assert isinstance(caught.value, Several)
    assert (caught.value.code, caught.value.param) == ("model_unreadable", "model")
    assert [error.param for error in each(caught.value)] == ["model", "task.dataset", "task.dataset"]
    assert str(caught.value) == "no config.json; no train split; no train split"
