"""Random models of real sizes: published widths and depths of each family, and texts or pictures for them."""

from __future__ import annotations

import io
import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ROBERTA = {"max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
_DEBERTA_V3 = {
    "vocab_size": 128100,
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "share_att_key": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "type_vocab_size": 0,
}
_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
_LLAMA = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": True}


def _decoder(*, hidden: int, layers: int, heads: int, groups: int, neurons: int, words: int, **others: Any) -> dict[str, Any]:
    return {
        **_LLAMA,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "intermediate_size": neurons,
        "vocab_size": words,
        **others,
    }


@dataclass(frozen=True)
class RealSize:
    """A model of a published size.

    Attributes:
        name: Name of the published model, or of the family with a word on its size.
        config: transformers' configuration class.
        options: Arguments of the configuration that differ from its defaults.
        task: Type of task that the model is pruned for.
        dtype: Type in which the weights are published.
    """

    name: str
    config: str
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    task: str = "text-classification"
    dtype: str = "float32"

    def configuration(self) -> Any:
        """Return the configuration, with an id of the padding token for models that read text."""
        import transformers

        config = getattr(transformers, self.config)(**self.options)
        if self.task != "image-classification" and config.pad_token_id is None:
            config.pad_token_id = 0
        return config

    def build(self, config: Any) -> Any:
        """Make the model, with weights drawn by its own initialisation."""
        import torch
        import transformers

        from pruning_core.spec.tasks import KINDS

        torch.manual_seed(0)
        kind = KINDS[self.task]  # pyright: ignore[reportArgumentType] - a key by construction
        return getattr(transformers, kind.loads_as).from_config(config, dtype=getattr(torch, self.dtype))

    def parameters(self) -> int:
        """Count the parameters without allocating them."""
        import torch

        with torch.device("meta"):
            return sum(own.numel() for own in self.build(self.configuration()).parameters())

    def write(self, folder: Path) -> Path:
        """Write the checkpoint, with a tokenizer or an image processor."""
        config = self.configuration()
        self.build(config).save_pretrained(folder)
        if self.task == "image-classification":
            from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

            ViTImageProcessorPil().save_pretrained(folder)
        else:
            _write_tokenizer(folder, config)
        return folder


def _of_decoders(name: str, config: str, options: dict[str, Any], dtype: str = "bfloat16") -> RealSize:
    return RealSize(name, config, options, "text-generation", dtype)


CATALOGUE = {
    own.name: own
    for own in (
        RealSize("bert-base", "BertConfig"),
        RealSize("distilbert", "DistilBertConfig"),
        RealSize("roberta-base", "RobertaConfig", {**_ROBERTA, "vocab_size": 50265}),
        RealSize("xlm-roberta-base", "XLMRobertaConfig", {**_ROBERTA, "vocab_size": 250002}),
        RealSize("camembert-base", "CamembertConfig", {**_ROBERTA, "vocab_size": 32005}),
        RealSize(
            "electra-base",
            "ElectraConfig",
            {"embedding_size": 768, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
        ),
        RealSize("mpnet-base", "MPNetConfig", {"vocab_size": 30527, "max_position_embeddings": 514}),
        RealSize(
            "deberta-v3-base",
            "DebertaV2Config",
            {**_DEBERTA_V3, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
        ),
        RealSize("modernbert-base", "ModernBertConfig"),
        RealSize(
            "modernbert-large",
            "ModernBertConfig",
            {"hidden_size": 1024, "intermediate_size": 2624, "num_hidden_layers": 28, "num_attention_heads": 16},
        ),
        RealSize("vit-base", "ViTConfig", task="image-classification"),
        RealSize("vit-large", "ViTConfig", _LARGE, task="image-classification"),
        _of_decoders("gpt2", "GPT2Config", {}, "float32"),
        _of_decoders("gpt2-medium", "GPT2Config", {"n_embd": 1024, "n_layer": 24, "n_head": 16}, "float32"),
        _of_decoders("opt-125m", "OPTConfig", {}, "float16"),
        _of_decoders(
            "opt-350m",
            "OPTConfig",
            {
                "hidden_size": 1024,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "ffn_dim": 4096,
                "word_embed_proj_dim": 512,
                "do_layer_norm_before": False,
            },
            "float16",
        ),
        _of_decoders(
            "opt-1.3b",
            "OPTConfig",
            {
                "hidden_size": 2048,
                "num_hidden_layers": 24,
                "num_attention_heads": 32,
                "ffn_dim": 8192,
                "word_embed_proj_dim": 2048,
            },
            "float16",
        ),
        _of_decoders(
            "llama-360m (SmolLM2)",
            "LlamaConfig",
            _decoder(hidden=960, layers=32, heads=15, groups=5, neurons=2560, words=49152, max_position_embeddings=8192),
        ),
        _of_decoders(
            "llama-1b (Llama 3.2)",
            "LlamaConfig",
            _decoder(hidden=2048, layers=16, heads=32, groups=8, neurons=8192, words=128256, head_dim=64),
        ),
        _of_decoders(
            "mistral (16 layers of 1024)",
            "MistralConfig",
            _decoder(hidden=1024, layers=16, heads=16, groups=4, neurons=3584, words=32000),
        ),
        _of_decoders(
            "qwen2-0.5b", "Qwen2Config", _decoder(hidden=896, layers=24, heads=14, groups=2, neurons=4864, words=151936)
        ),
        _of_decoders(
            "qwen3-0.6b",
            "Qwen3Config",
            _decoder(hidden=1024, layers=28, heads=16, groups=8, neurons=3072, words=151936, head_dim=128),
        ),
        _of_decoders(
            "gemma3-270m",
            "Gemma3TextConfig",
            _decoder(hidden=640, layers=18, heads=4, groups=1, neurons=2048, words=262144, head_dim=256, sliding_window=512),
        ),
        _of_decoders(
            "gemma3-1b",
            "Gemma3TextConfig",
            _decoder(hidden=1152, layers=26, heads=4, groups=1, neurons=6912, words=262144, head_dim=256, sliding_window=512),
        ),
        RealSize(
            "t5-base",
            "T5Config",
            {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12, "decoder_start_token_id": 0},
            "summarization",
        ),
        RealSize(
            "bart-base",
            "BartConfig",
            {
                "d_model": 768,
                "encoder_layers": 6,
                "decoder_layers": 6,
                "encoder_attention_heads": 12,
                "decoder_attention_heads": 12,
                "encoder_ffn_dim": 3072,
                "decoder_ffn_dim": 3072,
            },
            "summarization",
        ),
        RealSize("bart-large", "BartConfig", {}, "summarization"),
    )
}


def write_data(folder: Path, task: str, rows: int, held_out: int, tokens: int) -> Path:
    """Write both splits: rows of random words, of ``tokens`` tokens each, or pictures of noise."""
    folder.mkdir()
    rng = random.Random(0)  # noqa: S311 - text for a benchmark, no secret
    for split, count in (("train", rows), ("validation", held_out)):
        if task == "image-classification":
            _write_pictures(folder / split, count, rng)
            continue
        lines = [_row(task, rng, tokens, row) for row in range(count)]
        (folder / f"{split}.jsonl").write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    return folder


def task_of(task: str, data: Path) -> dict[str, Any]:
    """Return the task, for a spec, on the data of `write_data`."""
    columns: dict[str, dict[str, Any]] = {
        "text-classification": {"text": ["text"], "label": "label"},
        "text-generation": {"text": ["text"]},
        "summarization": {"text": ["text"], "label": "summary"},
        "image-classification": {"image": "image", "label": "label"},
    }
    metrics = {"text-generation": "perplexity", "summarization": "loss"}
    return {"type": task, "dataset": str(data), "columns": columns[task], "metric": metrics.get(task, "accuracy")}


# Smaller ids are special tokens in one family or another.
_FIRST_WORD = 10
_WORDS = 5000


def _row(task: str, rng: random.Random, tokens: int, row: int) -> dict[str, Any]:
    def text(count: int) -> str:
        return " ".join(f"w{rng.randrange(_FIRST_WORD, _WORDS)}" for _ in range(count))

    if task == "summarization":
        return {"text": text(tokens), "summary": text(tokens // 4)}
    return {"text": text(tokens)} | ({"label": row % 2} if task == "text-classification" else {})


def _write_pictures(folder: Path, count: int, rng: random.Random) -> None:
    from PIL import Image

    for row in range(count):
        place = folder / f"LABEL_{row % 2}"
        place.mkdir(parents=True, exist_ok=True)
        written = io.BytesIO()
        Image.frombytes("RGB", (224, 224), rng.randbytes(3 * 224 * 224)).save(written, format="PNG")
        (place / f"{row}.png").write_bytes(written.getvalue())


def _write_tokenizer(folder: Path, config: Any) -> None:
    """Write a tokenizer with a word for every row of the embeddings, so that files and products have their real size."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"w{index}": index for index in range(config.vocab_size)}
    named = {f"{what}_token": getattr(config, f"{what}_token_id", None) for what in ("pad", "bos", "eos")}
    given = {name: f"w{index}" for name, index in named.items() if isinstance(index, int) and index < config.vocab_size}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=f"w{_FIRST_WORD - 1}"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=f"w{_FIRST_WORD - 1}",
        model_input_names=["input_ids", "attention_mask"],
        **given,
    ).save_pretrained(folder)
