"""Mutations of tokenizers that a mutation of JSON rarely hits upon."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def mutate_tokenizer(model: Path, operation: str, index: int) -> None:
    """Mutate ``tokenizer.json`` and ``tokenizer_config.json`` together, as tools write them."""
    whole_path, said_path = model / "tokenizer.json", model / "tokenizer_config.json"
    if not whole_path.is_file() or not said_path.is_file():
        return
    whole, said = (json.loads(path.read_text(encoding="utf-8")) for path in (whole_path, said_path))
    OPERATIONS[operation](whole, said, index)
    whole_path.write_text(json.dumps(whole), encoding="utf-8")
    said_path.write_text(json.dumps(said), encoding="utf-8")
    if operation == "vocab-only":
        names = sorted(whole["model"]["vocab"], key=whole["model"]["vocab"].get)
        (model / "vocab.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
        whole_path.unlink()


def _add_tokens(whole: Any, _said: Any, index: int) -> None:
    """Add tokens without a row in the embeddings."""
    first = max(whole["model"]["vocab"].values()) + 1
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": bool(index % 2)}
    for number in range(1 + index % 3):
        whole["added_tokens"].append({"id": first + number, "content": f"word{number + 1}", **flags})


def _far_id(whole: Any, _said: Any, index: int) -> None:
    whole["model"]["vocab"]["word7"] = (67, 1000, 2**31, -1, 0)[index % 5]


def _lose_words(whole: Any, _said: Any, index: int) -> None:
    vocabulary = whole["model"]["vocab"]
    for word in list(vocabulary)[5 + index % 50 :]:
        del vocabulary[word]


def _lose_special(whole: Any, _said: Any, index: int) -> None:
    vocabulary = whole["model"]["vocab"]
    word = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")[index % 5]
    vocabulary.pop(word, None)
    if index % 2:
        whole["added_tokens"] = [token for token in whole["added_tokens"] if token.get("content") != word]


def _no_special(_whole: Any, said: Any, index: int) -> None:
    said[("pad_token", "unk_token", "cls_token", "sep_token", "mask_token", "eos_token")[index % 6]] = None


def _other_special(_whole: Any, said: Any, index: int) -> None:
    said[("pad_token", "unk_token", "mask_token", "eos_token")[index % 4]] = ("<new>", "word3", "", {"content": "<n>"})[
        index % 3
    ]


def _length(_whole: Any, said: Any, index: int) -> None:
    said["model_max_length"] = (0, -1, 1, 2, 3, 10**30, 1e30, None, "64", 4096)[index % 10]


def _class(_whole: Any, said: Any, index: int) -> None:
    names = ("BertTokenizer", "BertTokenizerFast", "GPT2Tokenizer", "LlamaTokenizer", "T5Tokenizer", "MyTokenizer", None, 5)
    said["tokenizer_class"] = names[index % len(names)]


def _parts(whole: Any, _said: Any, index: int) -> None:
    part = ("normalizer", "pre_tokenizer", "post_processor", "decoder", "padding", "truncation")[index % 6]
    values = (None, {"type": "NoSuch"}, {"type": "Lowercase"}, [], {"type": "Sequence", "normalizers": []})
    whole[part] = values[(index // 6) % len(values)]


def _truncation(whole: Any, _said: Any, index: int) -> None:
    whole["truncation"] = {"direction": "Right", "max_length": index % 5, "strategy": "LongestFirst", "stride": index % 7}


def _side(_whole: Any, said: Any, index: int) -> None:
    said[("padding_side", "truncation_side")[index % 2]] = ("left", "right", "both", None)[(index // 2) % 4]


def _template(_whole: Any, said: Any, index: int) -> None:
    said["chat_template"] = ("{% for m in messages %}", "{{ 1/0 }}", 5, [{"name": "default", "template": "x"}], "")[index % 5]


def _inputs(_whole: Any, said: Any, index: int) -> None:
    said["model_input_names"] = (["input_ids"], [], ["input_ids", "token_type_ids", "attention_mask"], ["pixel_values"], "x")[
        index % 5
    ]


def _vocab_only(_whole: Any, said: Any, _index: int) -> None:
    said["tokenizer_class"] = "BertTokenizer"


OPERATIONS: Mapping[str, Callable[[Any, Any, int], None]] = {
    "add-tokens": _add_tokens,
    "far-id": _far_id,
    "lose-words": _lose_words,
    "lose-special": _lose_special,
    "no-special": _no_special,
    "other-special": _other_special,
    "length": _length,
    "class": _class,
    "parts": _parts,
    "truncation": _truncation,
    "side": _side,
    "template": _template,
    "inputs": _inputs,
    "vocab-only": _vocab_only,
}
