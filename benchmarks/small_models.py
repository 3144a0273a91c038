"""Small trained models of every kind, because quality means something only for models that have learnt something.

The real models of ``../shared`` are all BERTs. These models have four layers and are trained from random weights in minutes:
encoders on the sentences of SST-2, encoder-decoders on numbers in words (``forty two`` becomes ``4 2``), decoders on the same
(``forty two = 4 2``), ViT on the handwritten digits of scikit-learn. They are written as ordinary checkpoints, each with its
tokenizer or image processor.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

_WIDTH, _LAYERS, _HEADS, _NEURONS = 128, 4, 4, 512
_WORDS, _SPECIAL = 4000, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_SIZES = {
    "hidden_size": _WIDTH,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _HEADS,
    "intermediate_size": _NEURONS,
    "max_position_embeddings": 66,
}
_LLAMA = {**_SIZES, "num_attention_heads": 8, "num_key_value_heads": 4, "intermediate_size": 384}
# Eight experts, of which a token passes through two; their loads are balanced as in the training of large ones.
_MIXTRAL = {**_LLAMA, "intermediate_size": 96, "num_local_experts": 8, "num_experts_per_tok": 2, "output_router_logits": True}
_T5 = {
    "d_model": _WIDTH,
    "d_kv": 32,
    "d_ff": _NEURONS,
    "num_layers": _LAYERS,
    "num_heads": _HEADS,
    "dropout_rate": 0.0,
    "decoder_start_token_id": 0,
}
_BART = {
    "d_model": _WIDTH,
    "encoder_layers": _LAYERS,
    "decoder_layers": _LAYERS,
    "encoder_attention_heads": _HEADS,
    "decoder_attention_heads": _HEADS,
    "encoder_ffn_dim": _NEURONS,
    "decoder_ffn_dim": _NEURONS,
    "max_position_embeddings": 66,
    "dropout": 0.0,
    "decoder_start_token_id": 0,
    "forced_eos_token_id": None,
}


@dataclass(frozen=True)
class SmallModel:
    """A model to train.

    Attributes:
        name: Name of the architecture.
        config: transformers' configuration class.
        task: Type of task.
        metric: Metric of the task.
        options: Arguments of the configuration.
        rate: Learning rate.
        epochs: Passes over the training rows.
    """

    name: str
    config: str
    task: str
    metric: str
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    rate: float = 1e-3
    epochs: int = 3

    @property
    def experts(self) -> bool:
        """Whether it is a mixture of experts."""
        return "num_experts_per_tok" in self.options


_GPT2 = {"n_positions": 64, "n_embd": _WIDTH, "n_layer": _LAYERS, "n_head": _HEADS, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
_VIT = {**_SIZES, "image_size": 8, "patch_size": 2, "num_labels": 10}
_WINDOWS = {"layer_types": ["full_attention", "sliding_attention"] * (_LAYERS // 2), "local_attention": 16}
SMALL_MODELS = (
    SmallModel("gpt2", "GPT2Config", "text-generation", "perplexity", _GPT2, epochs=15),
    SmallModel("llama", "LlamaConfig", "text-generation", "perplexity", _LLAMA, epochs=15),
    SmallModel("gpt-neox", "GPTNeoXConfig", "text-generation", "perplexity", _SIZES, epochs=15),  # as Pythia: side by side
    SmallModel("mixtral", "MixtralConfig", "text-generation", "perplexity", _MIXTRAL, epochs=10),
    SmallModel("t5", "T5Config", "translation", "bleu", _T5, epochs=12),
    SmallModel("bart", "BartConfig", "translation", "bleu", _BART, epochs=12),
    SmallModel("vit", "ViTConfig", "image-classification", "accuracy", _VIT, epochs=40),
    SmallModel("modernbert", "ModernBertConfig", "text-classification", "accuracy", {**_SIZES, **_WINDOWS}, rate=5e-4),
    SmallModel(
        "deberta-v2", "DebertaV2Config", "text-classification", "accuracy", {**_SIZES, "relative_attention": True}, 5e-4
    ),
)


def prepare(small: SmallModel, shared: Path, folder: Path, told: Callable[[str], None]) -> dict[str, Any]:
    """Write data and a trained model into a folder, unless they are there already. Return the task for a spec.

    Args:
        small: The model.
        shared: Folder with ``data/``.
        folder: Where to write.
        told: Called after each epoch with a line about the loss.
    """
    data = folder / "data" / small.task
    if not data.is_dir():
        _write_data(small.task, shared, data)
    model = folder / small.name
    if not model.is_dir():
        torch.manual_seed(0)
        partial = folder / f"{small.name}.partial"
        _write_reader(small.task, data, partial)
        _train(small, data, partial, told)
        partial.rename(model)
    columns: dict[str, dict[str, Any]] = {
        "text-generation": {"text": ["line"]},
        "text-classification": {"text": ["sentence"], "label": "label"},
        "translation": {"text": ["words"], "label": "digits"},
        "image-classification": {"image": "image", "label": "label"},
    }
    return {"type": small.task, "dataset": str(data), "columns": columns[small.task], "metric": small.metric}


def _write_data(task: str, shared: Path, folder: Path) -> None:
    splits = {
        "translation": _numbers,
        "text-generation": _lines,
        "image-classification": lambda: _digits(folder),
    }.get(task, lambda: _sentences(shared))()
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")


def _sentences(shared: Path) -> dict[str, list[dict[str, Any]]]:
    import pyarrow.parquet as pq

    folder = shared / "data" / "glue" / "sst2"
    return {
        split: pq.read_table(folder / f"{split}.parquet", columns=["sentence", "label"]).to_pylist()
        for split in ("train", "validation")
    }


_ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen"),
    *("fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def in_words(number: int) -> str:
    """Return a number below a million in words."""
    if number >= 1000:
        rest = f" {in_words(number % 1000)}" if number % 1000 else ""
        return f"{in_words(number // 1000)} thousand{rest}"
    if number >= 100:
        rest = f" and {in_words(number % 100)}" if number % 100 else ""
        return f"{_ONES[number // 100]} hundred{rest}"
    if number >= 20:
        return _TENS[number // 10 - 2] + (f" {_ONES[number % 10]}" if number % 10 else "")
    return _ONES[number]


def _numbers() -> dict[str, list[dict[str, Any]]]:
    rng = random.Random(0)  # noqa: S311 - rows of a benchmark, no secret
    drawn = rng.sample(range(1_000_000), 12_000)
    rows = [{"words": in_words(number), "digits": " ".join(str(number))} for number in drawn]
    return {"train": rows[:11_500], "validation": rows[11_500:]}


def _lines() -> dict[str, list[dict[str, Any]]]:
    return {split: [{"line": f"{row['words']} = {row['digits']}"} for row in rows] for split, rows in _numbers().items()}


def _digits(folder: Path) -> dict[str, list[dict[str, Any]]]:
    from PIL import Image
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    (folder / "images").mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    for index, (image, label) in enumerate(zip(found.images, found.target, strict=True)):
        name = f"images/{index}.png"
        Image.fromarray((image * 15.9).astype("uint8")).convert("RGB").save(folder / name)
        rows.append({"image": name, "label": int(label)})
    random.Random(0).shuffle(rows)  # noqa: S311 - likewise
    return {"train": rows[:1400], "validation": rows[1400:]}


def _write_reader(task: str, data: Path, folder: Path) -> None:
    """Write the tokenizer, trained on the training rows, or the image processor."""
    if task == "image-classification":
        from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

        ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(folder)
        return
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    texts = [text for row in _rows(data, "train") for text in row.values() if isinstance(text, str)]
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=_WORDS, special_tokens=_SPECIAL))
    shapes = {"text-classification": "[CLS] $A [SEP]", "translation": "$A [SEP]"}
    if task in shapes:
        marks = [(mark, tokenizer.token_to_id(mark)) for mark in ("[CLS]", "[SEP]")]
        pair = f"{shapes[task]} $B:1 [SEP]:1"
        tokenizer.post_processor = processors.TemplateProcessing(single=shapes[task], pair=pair, special_tokens=marks)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        eos_token="[SEP]",
        cls_token="[CLS]",
        mask_token="[MASK]",
        model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)


def _rows(data: Path, split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (data / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def _train(small: SmallModel, data: Path, folder: Path, told: Callable[[str], None]) -> None:
    """Train with AdamW, a warm-up and a cosine schedule, with products in bfloat16."""
    import transformers

    from pruning_core.spec.tasks import KINDS

    own: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 3, "eos_token_id": 3}
    if small.task != "image-classification":
        own["vocab_size"] = len(transformers.AutoTokenizer.from_pretrained(folder))
    config = getattr(transformers, small.config)(**{**own, **small.options})
    kind = KINDS[small.task]  # pyright: ignore[reportArgumentType] - a key by construction
    model = getattr(transformers, kind.loads_as).from_config(config).train()
    batches = _batches_of(small, data, folder)
    optimiser = torch.optim.AdamW(model.parameters(), lr=small.rate, weight_decay=0.05)
    steps = small.epochs * len(list(batches(0)))
    done = 0
    for epoch in range(small.epochs):
        total = count = 0.0
        for batch in batches(epoch):
            rate = small.rate * min(1, done / (0.05 * steps)) * (0.5 + 0.5 * math.cos(math.pi * done / steps))
            for group in optimiser.param_groups:
                group["lr"] = rate
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
            total, count, done = total + float(loss.detach()), count + 1, done + 1
        told(f"{small.name}: epoch {epoch + 1} of {small.epochs}, loss {total / count:.3f}")
    model.eval().save_pretrained(folder)


def _batches_of(small: SmallModel, data: Path, folder: Path) -> Callable[[int], Iterator[dict[str, torch.Tensor]]]:
    """Return a function that yields the batches of an epoch."""
    if small.task == "image-classification":
        return _image_batches(data, folder)
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    rows = _rows(data, "train")

    def encoded(texts: list[str]) -> dict[str, torch.Tensor]:
        found = tokenizer(texts, truncation=True, max_length=64, padding=True, return_tensors="pt")
        return {"input_ids": found["input_ids"], "attention_mask": found["attention_mask"]}

    def uncounted(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)

    def batches(epoch: int) -> Iterator[dict[str, torch.Tensor]]:
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(epoch)).tolist()
        if small.task == "text-generation":  # rows are joined, as in the evaluation
            words = [token for row in order for token in (*tokenizer(rows[row]["line"])["input_ids"], 3)]
            blocks = torch.tensor(words[: len(words) // 2048 * 2048]).view(-1, 32, 64)
            yield from ({"input_ids": block, "labels": block} for block in blocks)
            return
        for start in range(0, len(order), 64):
            part = [rows[row] for row in order[start : start + 64]]
            if small.task == "translation":
                target = encoded([row["digits"] for row in part])
                yield encoded([row["words"] for row in part]) | {"labels": uncounted(target)}
            else:
                yield encoded([row["sentence"] for row in part]) | {"labels": torch.tensor([row["label"] for row in part])}

    return batches


def _image_batches(data: Path, folder: Path) -> Callable[[int], Iterator[dict[str, torch.Tensor]]]:
    from PIL import Image
    from transformers import AutoImageProcessor

    processor: Any = AutoImageProcessor.from_pretrained(folder)
    rows = _rows(data, "train")
    pixels = processor([Image.open(data / row["image"]) for row in rows], return_tensors="pt")["pixel_values"]
    labels = torch.tensor([row["label"] for row in rows])

    def batches(epoch: int) -> Iterator[dict[str, torch.Tensor]]:
        for chosen in torch.randperm(len(rows), generator=torch.Generator().manual_seed(epoch)).split(64):
            yield {"pixel_values": pixels[chosen], "labels": labels[chosen]}

    return batches
