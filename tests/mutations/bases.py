"""The good requests that mutations start from: a tiny model, its data and a spec for each, made once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import tasks
from tests.families import ARCHITECTURES

_ROWS = 40


@dataclass(frozen=True)
class Place:
    """A folder with a request: the model, the data, and the spec as JSON."""

    folder: Path

    @property
    def model(self) -> Path:
        """Folder of the checkpoint."""
        return self.folder / "model"

    @property
    def data(self) -> Path:
        """Folder of the data set."""
        return self.folder / "data"

    @property
    def spec(self) -> Path:
        """File of the spec; paths in it are relative to the folder."""
        return self.folder / "spec.json"

    def request(self) -> Any:
        """Read the spec, with the paths of this place in it."""
        said = json.loads(self.spec.read_text(encoding="utf-8"))
        if isinstance(said, dict):
            if said.get("model") == "model":
                said["model"] = str(self.model)
            if isinstance(said.get("task"), dict) and said["task"].get("dataset") == "data":
                said["task"]["dataset"] = str(self.data)
        return said


def _named(task_type: str, family: str = "bert") -> Callable[[Path], object]:
    return lambda folder: tasks.write_task_model(folder, task_type, family)


def _architecture(name: str, head: str) -> Callable[[Path], object]:
    return lambda folder: ARCHITECTURES[name].write(folder, head)


def _sentences(folder: Path) -> None:
    """Write a folder as sentence-transformers saves it."""
    tasks.write_task_model(folder, "feature-extraction")
    kinds = (("0", "", "Transformer"), ("1", "1_Pooling", "Pooling"), ("2", "2_Normalize", "Normalize"))
    modules = [
        {"idx": int(number), "name": number, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, path, kind in kinds
    ]
    (folder / "1_Pooling").mkdir()
    (folder / "2_Normalize").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    for name, said in (
        ("modules.json", modules),
        ("1_Pooling/config.json", pooling),
        ("sentence_bert_config.json", {"max_seq_length": 64, "do_lower_case": False}),
    ):
        (folder / name).write_text(json.dumps(said, indent=1), encoding="utf-8")


# Name: type of task, and what writes the model.
BASES: Mapping[str, tuple[str, Callable[[Path], object]]] = {
    "bert-classes": ("text-classification", _named("text-classification")),
    "bert-labels": ("multi-label-classification", _named("multi-label-classification")),
    "bert-scores": ("regression", lambda folder: ARCHITECTURES["bert"].write_for("regression", folder)),
    "bert-tags": ("token-classification", _named("token-classification")),
    "bert-answers": ("question-answering", _named("question-answering")),
    "roberta-mask": ("fill-mask", _named("fill-mask", "roberta")),
    "sentences": ("feature-extraction", _sentences),
    "sentence-pairs": ("sentence-similarity", _sentences),
    "gpt2": ("text-generation", _named("text-generation")),
    "llama": ("text-generation", _architecture("llama", "generation")),
    "t5": ("summarization", _named("summarization")),
    "vit": ("image-classification", _named("image-classification")),
}

# What the process that proves bundles needs of the libraries: imported before it forks, as it is most of a tiny job.
WARM = (
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.auto.image_processing_auto",
    *(f"transformers.models.{name}.modeling_{name}" for name in ("bert", "roberta", "gpt2", "llama", "t5", "vit")),
    "transformers.models.vit.image_processing_vit",
    "transformers.models.bert.tokenization_bert",
    "sentence_transformers",
)


def write_bases(folder: Path) -> None:
    """Write every good request into a folder of its own."""
    for name, (task_type, write) in BASES.items():
        place = Place(folder / name)
        place.folder.mkdir(parents=True)
        write(place.model)
        tasks.write_task_data(place.data, task_type, rows=_ROWS)
        task = tasks.task_of(task_type, Path("data"))
        spec = {
            "model": "model",
            "task": task,
            "target": {"metric": "macs", "keep": 0.6, "tolerance": 0.1},
            "calibration": {"samples": 16, "max_length": 16, "batch_tokens": 256},
            "evaluation": {"max_samples": 16, "max_length": 16},
            "latency": {"batch": 1, "length": 8, "repeats": 3},
        }
        place.spec.write_text(json.dumps(spec, indent=1), encoding="utf-8")


def copy_of(base: Path, folder: Path) -> Place:
    """Copy a good request, to spoil it."""
    shutil.copytree(base, folder)
    return Place(folder)
