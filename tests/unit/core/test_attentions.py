"""A configuration that asks for attentions: transformers refuses to save it, so it is left out, and that is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from pruning_core.checks.notes import notes_on_model
from pruning_core.checks.request import check_checkpoint
from pruning_core.models.load import load_task_model
from tests import tiny


def test_attentions_are_left_out_of_what_is_saved_and_that_is_said(tiny_bert, tiny_sst2, tmp_path):
    model = Path(shutil.copytree(tiny_bert, tmp_path / "model"))
    task = tiny.tiny_spec(model, tiny_sst2).task
    assert not any("output_attentions" in note for note in notes_on_model(model, task))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"output_attentions": True}))
    check_checkpoint(model)
    assert any("output_attentions" in note for note in notes_on_model(model, task))
    loaded = load_task_model(model, "text-classification", torch.device("cpu"))
    loaded.model.save_pretrained(tmp_path / "out")
    assert not json.loads((tmp_path / "out" / "config.json").read_text()).get("output_attentions")
