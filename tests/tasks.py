"""A tiny model and data set for each type of task, made on the spot."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tests import tiny

TAGS = ("O", "B-X", "I-X", "B-Y", "I-Y")
ROWS = 160


def write_task_model(folder: Path, task_type: str, family: str = "bert", seed: int = 0) -> Path:
    """Write a tiny random model with the head of a task, and what reads its inputs."""
    import torch
    import transformers

    from pruning_core.spec.tasks import KINDS

    if task_type == "image-classification":
        return _write_vit(folder, seed)
    if task_type == "text-generation":
        return _write_gpt2(folder, seed)
    if task_type in ("summarization", "translation"):
        return _write_t5(folder, seed)
    sizes: dict[str, Any] = {"vocab_size": len(tiny.SPECIAL + tiny.WORDS), "max_position_embeddings": 66, "pad_token_id": 0}
    if family == "distilbert":
        config = transformers.DistilBertConfig(
            dim=tiny.HIDDEN, n_heads=tiny.HEADS, hidden_dim=tiny.NEURONS, n_layers=tiny.LAYERS, **sizes
        )
    else:
        kind = {"bert": transformers.BertConfig, "roberta": transformers.RobertaConfig}[family]
        config = kind(
            hidden_size=tiny.HIDDEN,
            num_attention_heads=tiny.HEADS,
            intermediate_size=tiny.NEURONS,
            num_hidden_layers=tiny.LAYERS,
            **sizes,
        )
    if task_type == "token-classification":
        config.id2label = dict(enumerate(TAGS))
        config.label2id = {name: index for index, name in enumerate(TAGS)}
    elif task_type == "multi-label-classification":
        config.id2label = dict(enumerate(classes_of(task_type) or ()))
        config.label2id = {name: index for index, name in config.id2label.items()}
    _save(getattr(transformers, KINDS[task_type].loads_as).from_config(config), folder, seed, torch)
    tiny.write_tokenizer(folder)
    return folder


def _save(model, folder: Path, seed: int, torch) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embed" not in name and "wte" not in name and "wpe" not in name and "shared" not in name:
                parameter.normal_(std=0.2, generator=generator)
            elif parameter.ndim == 2:
                parameter.normal_(std=1.0, generator=generator)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1, generator=generator)
    model.eval().save_pretrained(folder)


def _write_gpt2(folder: Path, seed: int) -> Path:
    import torch
    import transformers

    config = transformers.GPT2Config(
        vocab_size=len(tiny.SPECIAL + tiny.WORDS),
        n_positions=64,
        n_embd=tiny.HIDDEN,
        n_layer=tiny.LAYERS,
        n_head=tiny.HEADS,
        n_inner=tiny.NEURONS,
        bos_token_id=3,
        eos_token_id=3,
    )
    _save(transformers.GPT2LMHeadModel(config), folder, seed, torch)
    write_plain_tokenizer(folder)
    return folder


def _write_t5(folder: Path, seed: int) -> Path:
    import torch
    import transformers

    config = transformers.T5Config(
        vocab_size=len(tiny.SPECIAL + tiny.WORDS),
        d_model=tiny.HIDDEN,
        d_kv=tiny.HIDDEN // tiny.HEADS,
        d_ff=tiny.NEURONS,
        num_layers=tiny.LAYERS,
        num_heads=tiny.HEADS,
        pad_token_id=0,
        eos_token_id=3,
        decoder_start_token_id=0,
    )
    _save(transformers.T5ForConditionalGeneration(config), folder, seed, torch)
    write_plain_tokenizer(folder, pad_token="[PAD]", ends=True)
    return folder


def write_plain_tokenizer(folder: Path, pad_token: str | None = None, *, ends: bool = False) -> None:
    """Write a tokenizer as decoders have it: no mask, and no padding unless it is named."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(tiny.SPECIAL + tiny.WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if ends:
        tokenizer.post_processor = processors.TemplateProcessing(single="$A [SEP]", special_tokens=[("[SEP]", 3)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        eos_token="[SEP]",
        pad_token=pad_token,
        model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)


def _write_vit(folder: Path, seed: int) -> Path:
    import torch
    from transformers import ViTConfig, ViTForImageClassification
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    config = ViTConfig(
        hidden_size=tiny.HIDDEN,
        num_hidden_layers=tiny.LAYERS,
        num_attention_heads=tiny.HEADS,
        intermediate_size=tiny.NEURONS,
        image_size=16,
        patch_size=4,
        id2label={0: "dark", 1: "light"},
        label2id={"dark": 0, "light": 1},
    )
    _save(ViTForImageClassification(config), folder, seed, torch)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def classes_of(task_type: str) -> tuple[str, ...] | None:
    """Name the classes of the data that `write_task_data` writes; None where models of the task have none."""
    named = {
        "token-classification": TAGS,
        "multi-label-classification": ("good", "bad", "long"),
        "text-classification": ("other", "good"),
        "image-classification": ("dark", "light"),
        "regression": ("score",),
    }
    return named.get(task_type)


def task_of(task_type: str, data: Path, **changes: Any) -> dict[str, Any]:
    """Give the task of a type over the data that `write_task_data` writes."""
    columns: dict[str, dict[str, Any]] = {
        "text-classification": {"text": ["text"], "label": "label"},
        "multi-label-classification": {"text": ["text"], "label": "labels"},
        "regression": {"text": ["text"], "label": "score"},
        "feature-extraction": {"text": ["text"]},
        "sentence-similarity": {"text": ["text", "other"], "label": "score"},
        "token-classification": {"text": ["words"], "label": "tags"},
        "question-answering": {"text": ["question", "context"], "label": "answers"},
        "fill-mask": {"text": ["text"]},
        "text-generation": {"text": ["text"]},
        "summarization": {"text": ["text"], "label": "other"},
        "translation": {"text": ["text"], "label": "other"},
        "image-classification": {"image": "image", "label": "label"},
    }
    from pruning_core.spec.tasks import KINDS

    fields = {"type": task_type, "dataset": str(data), "columns": columns[task_type], "metric": KINDS[task_type].metrics[0]}
    return fields | changes


def write_task_data(folder: Path, task_type: str, rows: int = ROWS) -> Path:
    """Write both splits as JSON Lines; images as Parquet."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(3)
    for split, count in (("train", rows), ("validation", rows // 2)):
        found = [_row(task_type, rng) for _ in range(count)]
        if task_type == "image-classification":
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist(found), folder / f"{split}.parquet")
        else:
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    return folder


def _row(task_type: str, rng: random.Random) -> dict[str, Any]:
    words = rng.choices(tiny.WORDS, k=rng.randint(4, 20))
    text = " ".join(words)
    if task_type == "image-classification":
        label = rng.randint(0, 1)
        return {"image": {"bytes": picture(label, rng), "path": None}, "label": label}
    if task_type == "multi-label-classification":
        labels = [name for name in ("good", "bad") if name in words] + (["long"] if len(words) > 10 else [])
        return {"text": text, "labels": labels}
    if task_type == "token-classification":
        return {"words": words, "tags": [rng.randint(0, len(TAGS) - 1) for _ in words]}
    if task_type == "question-answering":
        answer = rng.choice(words)
        return {
            "question": "good " + answer,
            "context": text,
            "answers": {"text": [answer], "answer_start": [text.index(answer)]},
        }
    # A decoder has fewer tokens than its encoder, or more.
    others = {"summarization": words[:3], "translation": [*reversed(words), "good", "bad"]}.get(task_type, words[::-1])
    return {"text": text, "other": " ".join(others), "score": len(words) / 20, "label": int("good" in words)}


def picture(label: int, rng: random.Random) -> bytes:
    """Draw a small PNG, dark or light."""
    import io

    from PIL import Image

    level = 60 + 120 * label + rng.randint(-40, 40)
    image = Image.new("RGB", (20, 24), (level, level, rng.randint(0, 255)))
    written = io.BytesIO()
    image.save(written, format="PNG")
    return written.getvalue()
