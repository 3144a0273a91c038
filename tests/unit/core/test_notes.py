"""What is said of a model before a job; and images as users' pipelines read them."""

from __future__ import annotations

import base64
import io
import json

import pytest

from pruning_core.checks.use import notes_on_use
from pruning_core.spec.prune import TaskSpec
from pruning_core.tasks.images import upright


def _task(kind, **more):
    columns = {"text": ["text"], "label": "summary"}
    return TaskSpec.model_validate({"type": kind, "dataset": "./data", "columns": columns, "metric": "loss", **more})


PARAMS = {"summarization": {"prefix": "summarize: ", "num_beams": 4}, "translation_en_to_de": {"prefix": "translate: "}}


@pytest.mark.parametrize(("kind", "prefix"), [("summarization", "summarize: "), ("translation", "translate: ")])
def test_a_prefix_that_the_model_was_trained_with_is_told(kind, prefix, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"task_specific_params": PARAMS}))
    (said,) = notes_on_use(_task(kind), tmp_path)
    assert repr(prefix) in said
    assert "give it as task.prefix" in said
    assert notes_on_use(_task(kind, prefix=prefix), tmp_path) == ()


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"num_beams": 4}, "with 4 beams"), ({"do_sample": True}, "by drawing tokens"), ({"num_beams": 1}, None)],
)
def test_another_way_of_writing_is_told(settings, says, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "generation_config.json").write_text(json.dumps(settings))
    found = notes_on_use(_task("summarization"), tmp_path)
    assert (found == ()) if says is None else (says in found[0])


def test_a_photograph_is_turned_as_users_pipelines_turn_it():
    from PIL import Image
    from transformers.image_utils import load_image

    image = Image.new("RGB", (4, 2), "black")
    image.putpixel((0, 0), (255, 255, 255))
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was held upright
    written = io.BytesIO()
    image.save(written, "PNG", exif=exif)
    theirs = load_image(base64.b64encode(written.getvalue()).decode())
    ours = upright(Image.open(io.BytesIO(written.getvalue()))).convert("RGB")
    assert ours.size == theirs.size == (2, 4)
    assert ours.tobytes() == theirs.tobytes()
