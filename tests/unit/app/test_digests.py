"""Two requests are the same one when the same was sent, whatever a later version of the model makes of it."""

import json

import pytest

from app.jobs.digests import digest_of, first_digest
from app.jobs.schemas import JobCreate
from pruning_core.spec.prune import PruneSpec

BODY = {"model": "org/name", "task": "glue/sst2", "sparsity": 0.5}
ZEROS = {
    "model": "org/name",
    "task": "glue/sst2",
    "data": "org/data",
    "method": {"name": "admm-pattern", "pattern": "2:4"},
    "recovery": {"tolerance": 1e-5, "damping": 0.1},
    "metadata": {"run": "é☃"},
    "priority": 3,
}
# What commit 1ac4d00, the last before digests of what was sent, wrote for these bodies: never to be computed anew.
FIRST = [
    (BODY, "78a3cf115f34956fa2129ce8afa2bf5a0b2bafd28e5ff800f0a0bf8670e0d67f"),
    (ZEROS, "b4c27974bcef9d977ae29f9493a2b234d3d524cd6a431a4a43b9690e770c77ef"),
]
STORED = json.loads("""{
    "version": 1, "model": "org/name", "revision": null,
    "task": {"name": "glue/sst2", "type": "text-classification", "dataset": "nyu-mll/glue", "config": "sst2",
        "train_split": "train", "validation_split": "validation",
        "columns": {"text": ["sentence"], "image": null, "label": "label"}, "metric": "accuracy", "prefix": null},
    "target": {"metric": "sparsity", "sparsity": 0.5, "tolerance": 0.01}, "targets": [], "quality_floor": null,
    "method": {"name": "fisher-cg", "labels": "ignore", "representation": 0.2, "rearrange": false},
    "recovery": {"kind": "weights", "solver": "auto", "damping": 0.1, "tolerance": 1e-05, "max_iterations": 200,
        "holdout": 0.125},
    "calibration": {"samples": 512, "sampling": "longer", "max_length": 128, "batch_tokens": null, "precision": "auto",
        "memory_mb": 448},
    "memory": {"weights": "auto"}, "evaluation": {"max_samples": null, "max_length": 128},
    "latency": {"batch": 8, "length": 128, "threads": 1, "repeats": 20},
    "artifacts": {"dtype": "auto", "layout": "per_layer", "formats": ["safetensors"], "shard_mb": 5000, "strict": false},
    "seed": 0}""")


@pytest.mark.parametrize(
    "text",
    [
        '{"model":"org/name","task":"glue/sst2","sparsity":0.5,"seed":1,"calibration":{"samples":64}}',
        '{"calibration": {"samples": 64}, "seed": 1, "sparsity": 0.5, "task": "glue/sst2", "model": "org/name"}',
        '{"model":"org/name","task":"glue/sst2","sparsity":5e-1,"seed":1.0,"calibration":{"samples":6.4e1}}',
        '{"model":"org\\u002fname","task":"glue/sst2","sparsity":0.50,"seed":1,"calibration":{"samples":64}}',
        '{"model":"org/name","task":"glue/sst2","sparsity":0.5,"seed":1,"calibration":{"samples":64},"validate_only":false}',
    ],
    ids=["as it is", "other order", "other numbers", "other letters", "no plan"],
)
def test_the_same_json_has_the_same_digest(text):
    assert digest_of(json.loads(text)) == "f0c922efb3c009ddf681a845f63239e20fe639577fed47daa009269fea7c628a"


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"seed": True}, {"seed": "0"}, {"seed": None}, {"metadata": {"seed": "0"}}, {"sparsity": 0.25}]
)
def test_other_json_has_another_digest(change):
    assert digest_of(BODY | change) != digest_of(BODY)


@pytest.mark.parametrize(("body", "digest"), FIRST)
def test_the_digests_of_the_first_versions_are_known(body, digest):
    request = JobCreate.model_validate(body)
    assert first_digest(request, request.to_spec().model_dump(mode="json")) == digest


def test_a_row_of_the_first_versions_is_recognised_by_the_fields_that_it_has():
    assert first_digest(JobCreate.model_validate(BODY), STORED) == FIRST[0][1]
    assert first_digest(JobCreate.model_validate(BODY | {"seed": 1}), STORED) != FIRST[0][1]


@pytest.mark.parametrize(("field", "inner"), [("memory", None), ("method", "rearrange"), ("recovery", "holdout")])
def test_a_field_of_a_later_version_does_not_count_until_it_is_set(field, inner):
    """A row that is older than a field: here one of today's plays the later one."""
    older = json.loads(json.dumps(STORED))
    if inner is None:
        del older[field]
    else:
        del older[field][inner]
    request = JobCreate.model_validate(BODY)
    assert first_digest(request, older) == _as_then(older)
    value = {"memory": {"weights": "paged"}, "method": {"name": "fisher-cg", "rearrange": True}, "recovery": {"holdout": 0.25}}
    assert first_digest(JobCreate.model_validate(BODY | {field: value[field]}), older) is None


def _as_then(stored):
    """What the version that wrote this spec took the digest of: its model as JSON, metadata and priority at their defaults."""
    import hashlib

    from pydantic_core import to_json

    whole = stored | {"metadata": {}, "priority": 0, "validate_only": False}
    return hashlib.sha256(to_json(whole)).hexdigest()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sparsity": None, "targets": [{"metric": "macs", "keep": 0.5}, {"metric": "macs", "keep": 0.3}]},
        {"method": {"name": "admm-pattern", "pattern": "2:4"}, "artifacts": {"layout": "serve", "engines": ["vllm"]}},
        {"quality_floor": 0.99, "metadata": {"run": "7"}, "needs": {"device": "cuda"}},
    ],
    ids=str,
)
def test_the_spec_of_a_request_is_what_its_fields_would_be_validated_to(changes):
    body = {"model": "org/name@main", "task": "glue/sst2", "sparsity": 0.5} | changes
    request = JobCreate.model_validate({name: value for name, value in body.items() if value is not None})
    spec = request.to_spec()
    again = PruneSpec.model_validate({name: getattr(request, name) for name in PruneSpec.model_fields})
    assert type(spec) is PruneSpec
    assert (spec, spec.model_fields_set, hash(spec)) == (again, again.model_fields_set, hash(again))
    assert PruneSpec.model_validate_json(spec.model_dump_json()) == spec
