"""A kept latency table serves only what it was measured for: every fact that decides a time is part of its key."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from pruning_core.arch.adapter import adapt
from pruning_core.measure import latency_table
from pruning_core.measure.latency_table import latency_model, table_key
from pruning_core.models.load import load_task_model
from pruning_core.spec.prune import LatencySpec
from tests import tiny

SPEC = LatencySpec(batch=1, length=8, repeats=3, threads=1)


@pytest.fixture(scope="module")
def dense(tiny_bert):
    return load_task_model(tiny_bert, "text-classification", torch.device("cpu"))


def _key(model, spec=SPEC):
    return table_key(model, adapt(model.model).groups, spec)


def test_the_same_thing_has_the_same_key(dense, tiny_bert):
    again = load_task_model(tiny_bert, "text-classification", torch.device("cpu"))
    assert _key(again) == _key(dense)
    assert _key(again, SPEC.model_copy(update={"repeats": 9})) == _key(dense), "repeats are of other measurements"


def _with(model, **config):
    own = copy.deepcopy(model.model)
    for name, value in config.items():
        setattr(own.config, name, value)
    return dataclasses.replace(model, model=own)


def _built(model, **sizes):
    return dataclasses.replace(model, model=tiny.build_model("bert", **sizes))


OTHERS = {
    "attention kernel": lambda model: _with(model, _attn_implementation="eager"),
    "activation": lambda model: _with(model, hidden_act="relu"),
    "type": lambda model: dataclasses.replace(model, model=copy.deepcopy(model.model).bfloat16()),
    "head": lambda model: _built(model, num_labels=5),
    "layers": lambda model: _built(model, num_hidden_layers=3),
    "width": lambda model: _built(model, intermediate_size=80),
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_model_has_another_key(what, dense):
    assert _key(OTHERS[what](dense)) != _key(dense)


@pytest.mark.parametrize("change", [{"batch": 2}, {"length": 9}, {"threads": 2}])
def test_another_shape_has_another_key(change, dense):
    assert _key(dense, SPEC.model_copy(update=change)) != _key(dense)


def test_lengths_that_the_model_cuts_to_the_same_are_the_same(dense):
    assert _key(dense, SPEC.model_copy(update={"length": 64})) == _key(dense, SPEC.model_copy(update={"length": 512}))


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        (latency_table, "version", lambda _name: "0.0.1"),
        (torch, "__version__", "0.0.1"),
        (torch, "get_float32_matmul_precision", lambda: "medium"),
        (latency_table, "processor_name", lambda: "another"),
    ],
    ids=["transformers", "torch", "precision", "processor"],
)
def test_another_machine_or_library_has_another_key(where, name, value, dense, monkeypatch):
    before = _key(dense)
    monkeypatch.setattr(where, name, value)
    assert _key(dense) != before


def test_names_of_classes_decide_no_time(dense):
    assert _key(_with(dense, id2label={0: "no", 1: "yes"}, _name_or_path="elsewhere")) == _key(dense)


def test_a_kept_table_is_read_by_the_same_and_by_nothing_else(dense, tmp_path):
    first = latency_model(dense, adapt(dense.model), SPEC, tmp_path)
    assert latency_model(dense, adapt(dense.model), SPEC, tmp_path) == first
    assert len(list(tmp_path.iterdir())) == 1
    eager = _with(dense, _attn_implementation="eager")
    latency_model(eager, adapt(eager.model), SPEC, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
