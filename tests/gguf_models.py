"""Tiny models with tokenizers of the kinds that llama.cpp reads, made on the spot."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import gguf
import torch
import transformers

from pruning_core.arch.adapter import adapt, clone
from pruning_core.arch.cut import slice_
from pruning_core.arch.masks import Mask
from pruning_core.artifacts.exports.base import Exported
from pruning_core.artifacts.exports.registry import export_all
from pruning_core.models.load import load_task_model
from pruning_core.plugin.per_layer import leave_out_attention_
from pruning_core.spec.artifacts import ArtifactSpec

TEXT = "text-generation"
CPU = torch.device("cpu")
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace("{1,3}", "")
TEMPLATE = "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
_ENDS = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 640}
GROUPED = SIZES | {"num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256}


def corpus() -> list[str]:
    from pruning_core.artifacts.exports.gguf.proof import TEXTS

    return [*TEXTS, *TEXTS, "the cat and the dog and the house in the village at the mountain"] * 3


def byte_tokenizer(regex: str | None, *, digits: bool = False, begins: bool = False, whole: bool = False):
    """Make one of bytes and merges, which splits texts by GPT-2's regex, by digits before it, or by another regex."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    levels = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex is None)
    before = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    before += [] if regex is None else [pre_tokenizers.Split(Regex(regex), "isolated")]
    tokenizer = Tokenizer(models.BPE(ignore_merges=whole))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*before, levels]) if before else levels
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=560, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in _ENDS.values()])
    if begins:
        first = tokenizer.token_to_id("<|im_start|>")
        tokenizer.post_processor = processors.TemplateProcessing("<|im_start|> $A", special_tokens=[("<|im_start|>", first)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|im_end|>", chat_template=TEMPLATE, **_ENDS)


def piece_tokenizer(*, prefix: bool = True, first: bool = False):
    """Make one like SentencePiece's: pieces of words with marks for spaces, and a token for each byte.

    Spaces are put before every part of a text between special tokens, before none, or before the first alone.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    latin = [text for text in corpus() if text.isascii()]
    learner.train_from_iterator(latin, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    pieces = sorted(learner.get_vocab(), key=learner.get_vocab().get)
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    vocabulary = {name: index for index, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    steps = [normalizers.Prepend("▁")] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    if first:
        tokenizer.normalizer = None
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def word_pieces(*, lower: bool = True):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **names)


def write(folder: Path, config, tokenizer, *, auto: str = "AutoModelForCausalLM", dtype: str = "bfloat16") -> Path:
    """Write a random model, with weights large enough for every one to matter."""
    torch.manual_seed(0)
    model = getattr(transformers, auto).from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=2.4 / parameter.shape[-1] ** 0.5 if "embed" not in name else 1.0)
            elif name.endswith("bias"):
                parameter.normal_(std=0.3)
            else:
                parameter.add_(torch.rand_like(parameter) - 0.5)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


LLAMA = {"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}, "tie_word_embeddings": True}


@cache
def tokenizers():
    """Make one of each kind."""
    return {
        "gpt-2": byte_tokenizer(None),
        "smollm": byte_tokenizer(None, digits=True),
        "llama-bpe": byte_tokenizer(LLAMA3, begins=True, whole=True),
        "qwen2": byte_tokenizer(QWEN2),
        "pieces": piece_tokenizer(),
        "gemma": piece_tokenizer(prefix=False),
        "words": word_pieces(),
        "cased": word_pieces(lower=False),
    }


def model_of(folder, config, tokenizer, task=TEXT, **options):
    return load_task_model(write(folder, config, tokenizer, **options), task, CPU)


def cut(dense, change):
    """Cut a model; ``change`` says how many units of each sublayer stay."""
    student = clone(dense.model)
    groups = adapt(student).groups
    mask = Mask.full([group.size for group in groups])
    for index, kept in enumerate(mask.kept):
        kept[change(index, group_size=groups[index].size) :] = False
    slice_(student, mask)
    return dense.with_model(student)


def uneven(index, group_size):
    """Give the layers' FFNs widths of their own, and the second layer's attention one group less."""
    return group_size - 32 * (index // 2) if index % 2 else group_size - (index == 2)


def without_attention(model, layer):
    """Take a layer's attention out, as layout serve leaves it: no matrices, no norm, and nothing is added."""
    leave_out_attention_(model.model.layers[layer], "self_attn", "input_layernorm")


def export(folder, pruned, dense, *kinds, engines=None):
    folder.mkdir(exist_ok=True)
    options = ArtifactSpec(formats=("safetensors", "gguf"), gguf=kinds)
    return export_all(Exported(folder, pruned, dense, options, engines=engines))


def read(folder, row):
    reader = gguf.GGUFReader(folder / row.path)
    tensors = {own.name: gguf.dequantize(own.data, own.tensor_type).reshape(own.shape[::-1]) for own in reader.tensors}
    return {name: own.contents() for name, own in reader.fields.items()}, tensors
