"""Names that llama.cpp has for the ways in which tokenizers split texts before they merge bytes. Torch-free.

llama.cpp knows a tokenizer's rules by name alone (``tokenizer.ggml.pre``; the regexes are in `src/llama-vocab.cpp`). Its
converter finds the name by a hash of one text's tokens, so that it knows published vocabularies only. Here the rules themselves
are compared, so a vocabulary that was trained anew, or cut, has its name too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_MARKS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
)
_SLASHES = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_HAN = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_DEEPSEEK = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DIGIT = r"\p{N}"
_LLAMA3 = rf"{_SHORT}|{_WORDS}|\p{{N}}{{1,3}}|{_MARKS}"
_QWEN2 = rf"{_SHORT}|{_WORDS}|\p{{N}}|{_MARKS}"

# By the regexes in order, and whether a word that is a token is taken whole, without its merges.
_NAMES: Mapping[tuple[tuple[str, ...], bool], str] = {
    ((_GPT2,), False): "gpt-2",
    ((_DIGIT, _GPT2), False): "smollm",
    ((_LLAMA3,), True): "llama-bpe",
    ((_LLAMA3,), False): "dbrx",
    ((_QWEN2,), False): "qwen2",
    ((rf"{_CASED[0]}|{_CASED[1]}|\p{{N}}|{_SLASHES}",), True): "tekken",
    ((rf"{_CASED[0]}{_SHORT}?|{_CASED[1]}{_SHORT}?|\p{{N}}{{1,3}}|{_SLASHES}",), False): "gpt-4o",
    ((r"\p{N}{1,3}", _HAN, _DEEPSEEK), False): "deepseek-v3",
}


def split_name(tokenizer: Mapping[str, Any]) -> str | None:
    """Return llama.cpp's name for the splitting rules of a byte-level tokenizer; None where it has none.

    Args:
        tokenizer: What tokenizer.json says.
    """
    rules = _regexes(tokenizer.get("pre_tokenizer"))
    whole = bool(tokenizer["model"].get("ignore_merges"))
    return None if rules is None else _NAMES.get((tuple(rules), whole))


def _regexes(step: object) -> list[str] | None:
    """Return the regexes of the steps before the merges; None where a step is something else."""
    own = cast("Mapping[str, Any]", step) if isinstance(step, Mapping) else {}
    match own.get("type"):
        case "Sequence":
            parts = [_regexes(part) for part in cast("Sequence[object]", own["pretokenizers"])]
            return None if any(part is None for part in parts) else [rule for part in parts for rule in part or ()]
        case "ByteLevel":
            rules = [_GPT2] if own.get("use_regex", True) else []
            return None if own.get("add_prefix_space", True) else rules
        case "Digits":
            return [_DIGIT] if own.get("individual_digits") else None
        case "Split":
            return _split(own)
        case _:
            return None


def _split(step: Mapping[str, Any]) -> list[str] | None:
    """Return the regex of a step whose matches are the parts: isolated, or what is left when all else is removed."""
    pattern, inverted = cast("Mapping[str, Any]", step["pattern"]), bool(step.get("invert"))
    parts = step.get("behavior") == ("Removed" if inverted else "Isolated")
    return [str(pattern["Regex"])] if parts and "Regex" in pattern else None
