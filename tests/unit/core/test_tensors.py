"""Tensors that a checkpoint must have: `check` refuses what the job would."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from pruning_core.checks.heads import LOADED_BY
from pruning_core.checks.tensors import check_tensors
from pruning_core.errors import ModelUnreadable
from pruning_core.files.checkpoint import read_checkpoint
from pruning_core.models.load import load_task_model
from pruning_core.spec.tasks import KINDS
from tests import expected_tensors
from tests.families import SUPPORTED

CPU = torch.device("cpu")
TASKS = {kind.loads_as: name for name, kind in KINDS.items()}
PAIRS = [
    pytest.param(own, TASKS[auto], id=f"{own.name} {auto}")
    for own in SUPPORTED
    for auto in sorted(LOADED_BY.get(own.build_config().model_type, ()))
]

_GIVEN = {
    "deit": {"architectures": ["DeiTForImageClassification"]},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
}


def judge(task: str, folder) -> str | None:
    """Return what the check has against a checkpoint."""
    facts = read_checkpoint(folder)
    try:
        check_tensors(task, facts.config, facts.shapes)
    except ModelUnreadable as error:
        return error.message
    return None


def job_refuses(task: str, folder) -> bool:
    try:
        load_task_model(folder, task, CPU)
    except ModelUnreadable:
        return True
    return False


@pytest.mark.parametrize("model_type", ["bert", "llama", "t5", "vit"])
def test_what_is_expected_is_what_transformers_has(model_type):
    written = json.loads(expected_tensors.PLACE.read_text(encoding="utf-8"))
    for name, entry in expected_tensors.entries([model_type]):
        assert written[name] == json.loads(json.dumps(entry))


@pytest.mark.parametrize(("own", "task"), PAIRS)
def test_a_checkpoint_passes(own, task, tmp_path):
    folder = own.write_for(task, tmp_path / "model")
    assert judge(task, folder) is None


@pytest.mark.parametrize("model_type", sorted(LOADED_BY))
def test_a_model_of_the_usual_sizes_passes(model_type):
    """The configuration's own sizes, in a file that states them and in one that does not."""
    for auto in sorted(LOADED_BY[model_type]):
        config = CONFIG_MAPPING[model_type](**_GIVEN.get(model_type, {}))
        model = expected_tensors.model_of(config, auto)
        shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        for whole in (False, True):
            stated = json.loads(config.to_json_string(use_diff=whole))
            check_tensors(TASKS[auto], stated, shapes)
            check_tensors(
                TASKS[auto], stated, {name.removeprefix(f"{model.base_model_prefix}."): own for name, own in shapes.items()}
            )
            for odd in (name for name in list(shapes)[-3:] if not (auto == "AutoModel" and "pooler" in name)):
                with pytest.raises(ModelUnreadable, match="has shape"):
                    check_tensors(TASKS[auto], stated, shapes | {odd: (*shapes[odd], 1)})


@pytest.mark.parametrize(
    ("own", "task"),
    [
        pytest.param(*pair.values, marks=[] if pair.values[0].name == "bert" else pytest.mark.matrix)
        for pair in PAIRS
        if pair.values[0].name in ("bert", "t5", "vit", "gpt2", "llama")
    ],
)
def test_every_tensor_that_the_job_needs_is_asked_for(own, task, tmp_path):
    folder = own.write_for(task, tmp_path / "model")
    assert not job_refuses(task, folder)
    path = folder / "model.safetensors"
    whole = load_file(path)
    for name in [name for name in whole if not any(f".{layer}." in name for layer in range(1, 9))]:
        save_file({other: value for other, value in whole.items() if other != name}, path, {"format": "pt"})
        assert (judge(task, folder) is not None) == job_refuses(task, folder), name
        save_file(whole | {name: torch.cat([whole[name], whole[name][:1]])}, path, {"format": "pt"})
        said = judge(task, folder)
        assert (said is not None) == job_refuses(task, folder), name
