"""What a tokenizer's JSON files must hold for the library of tokenizers, and transformers, to read them. Torch-free.

The rules are those that `tokenizers` refuses a file by; a test tries each on the library itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

_LARGEST_ID = 2**32 - 1
_SIZES = 2**53
_KEYS = frozenset(
    {
        *("version", "truncation", "padding", "added_tokens", "normalizer"),
        *("pre_tokenizer", "post_processor", "decoder", "model"),
    }
)
_PARTS: Mapping[str, frozenset[str]] = {
    "normalizer": frozenset(
        {
            *("BertNormalizer", "ByteLevel", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt"),
            *("Precompiled", "Prepend", "Replace", "Sequence", "Strip", "StripAccents"),
        }
    ),
    "pre_tokenizer": frozenset(
        {
            *("BertPreTokenizer", "ByteLevel", "Delimiter", "CharDelimiterSplit", "Digits", "FixedLength", "Metaspace"),
            *("Punctuation", "Sequence", "Split", "UnicodeScripts", "Whitespace", "WhitespaceSplit"),
        }
    ),
    "post_processor": frozenset({"BertProcessing", "ByteLevel", "RobertaProcessing", "Sequence", "TemplateProcessing"}),
    "decoder": frozenset(
        {
            *("BPEDecoder", "ByteFallback", "ByteLevel", "CTC", "Fuse", "Metaspace", "Replace", "Sequence", "Strip"),
            *("WordPiece",),
        }
    ),
}
_LISTS = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "post_processor": "processors", "decoder": "decoders"}
_MODELS = ("BPE", "WordPiece", "WordLevel", "Unigram")
_ADDED: Mapping[str, type] = {
    "content": str,
    **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), bool),
}
_DEEPEST = 16
_NAMED = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
_SIDES = ("left", "right")
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class TokenizerRefused(ValueError):
    """The file is no tokenizer's. The message goes on from the file's name and a colon."""


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise TokenizerRefused(message)


def check_tokenizer(whole: Mapping[str, Any]) -> None:
    """Check a parsed tokenizer.json. Of large files, the caller has left the merges out.

    Raises:
        TokenizerRefused: The library of tokenizers would refuse it.
    """
    unknown = sorted(whole.keys() - _KEYS)
    _require(not unknown, f"{', '.join(unknown)[:64]!r} is no entry of such a file")
    _require(whole.get("version", "1.0") == "1.0", "its version must be '1.0'")
    added = whole.get("added_tokens")
    _require(isinstance(added, list), "added_tokens must be a list, empty where there are none")
    for entry in cast("list[object]", added):
        _check_added(entry)
    for part, kinds in _PARTS.items():
        said = f"{part} must be null, or an object whose type is one of {', '.join(sorted(kinds))}"
        _require(_is_part(whole.get(part), part, kinds, 0), said)
    _check_settings(whole)
    _check_model(whole.get("model"))


def _check_added(entry: object) -> None:
    fields = cast("dict[str, object]", entry) if isinstance(entry, dict) else {}
    _require(_is_id(fields.get("id")), "each of added_tokens must have an id, a whole number from 0")
    for name, kind in _ADDED.items():
        must = "a text" if name == "content" else "true or false"
        _require(isinstance(fields.get(name), kind), f"each of added_tokens must have {name}, {must}")


def _is_part(part: object, name: str, kinds: frozenset[str], depth: int) -> bool:
    if part is None and depth == 0:
        return True
    if not isinstance(part, dict) or depth > _DEEPEST:
        return False
    fields = cast("dict[str, object]", part)
    kind = fields.get("type")
    if not isinstance(kind, str) or kind not in kinds:
        return False
    own = fields.get(_LISTS[name])
    inner = cast("list[object]", own) if isinstance(own, list) else [None]
    return kind != "Sequence" or all(_is_part(one, name, kinds, depth + 1) for one in inner)


def _check_settings(whole: Mapping[str, Any]) -> None:
    for name, numbers, strategies in (
        ("truncation", ("max_length", "stride"), ("LongestFirst", "OnlyFirst", "OnlySecond")),
        ("padding", ("pad_id", "pad_type_id"), ("BatchLongest",)),
    ):
        stated: object = whole.get(name)
        if stated is None:
            continue
        fields = cast("dict[str, object]", stated) if isinstance(stated, dict) else {}
        whole_numbers = all(_is_size(fields.get(number)) for number in numbers)
        said = f"{name} must be null, or an object with strategy, {', '.join(numbers)} and direction, as tokenizers saves it"
        _require(whole_numbers and _is_strategy(fields.get("strategy"), strategies), said)
        _require(fields.get("direction", None if name == "padding" else "Right") in ("Left", "Right"), said)
        if name == "truncation":
            room = cast("int", fields["max_length"]) - _inserted(whole.get("post_processor"))
            _require(not 0 <= room < cast("int", fields["stride"]), "the stride of its truncation must be below its max_length")
        else:
            formed = isinstance(fields.get("pad_token"), str) and all(_is_id(fields[number]) for number in numbers)
            _require(formed, "its padding must have pad_token, a text, and pad_id and pad_type_id, whole numbers")
            multiple = fields.get("pad_to_multiple_of")
            _require(multiple is None or _is_size(multiple), "pad_to_multiple_of of its padding must be null or a whole number")


def _is_strategy(found: object, plain: Sequence[str]) -> bool:
    if isinstance(found, dict):  # of padding, to a length of its own; or as some writers have the others
        ((name, value),) = cast("dict[str, object]", found).items() if len(found) == 1 else (("", None),)
        return (name in plain and value is None) or (name == "Fixed" and "BatchLongest" in plain and _is_size(value))
    return isinstance(found, str) and found in plain


def _inserted(part: object) -> int:
    """Count the special tokens that a post-processor puts into a text."""
    fields = cast("dict[str, Any]", part) if isinstance(part, dict) else {}
    match fields.get("type"):
        case "BertProcessing" | "RobertaProcessing":
            return 2
        case "TemplateProcessing":
            pieces = cast("list[object]", fields["single"]) if isinstance(fields.get("single"), list) else []
            return sum(isinstance(piece, dict) and "SpecialToken" in piece for piece in pieces)
        case "Sequence":
            inner = cast("list[object]", fields["processors"]) if isinstance(fields.get("processors"), list) else []
            return sum(map(_inserted, inner))
        case _:
            return 0


def _check_model(model: object) -> None:
    _require(isinstance(model, dict), "it has no model, which holds the vocabulary")
    fields = cast("dict[str, Any]", model)
    kind = fields.get("type")
    _require(kind is None or kind in _MODELS, f"the type of its model must be one of {', '.join(_MODELS)}")
    vocabulary: object = fields.get("vocab")
    if kind == "Unigram" or (kind is None and isinstance(vocabulary, list)):
        _check_pieces(vocabulary, fields.get("unk_id"))
        return
    _require(isinstance(vocabulary, dict), "the vocab of its model must be an object, from tokens to ids")
    tokens = cast("dict[str, int]", vocabulary)
    _require(all(map(_is_id, tokens.values())), "the vocab of its model must give each token an id, a whole number from 0")
    if kind == "BPE" or (kind is None and "merges" in fields):
        _check_merges(fields, tokens)
        return
    unknown: object = fields.get("unk_token")
    _require(isinstance(unknown, str), "the model, of whole words or pieces of them, must name an unk_token")
    said = f"the unk_token of its model, {cast('str', unknown)[:40]!r}, is not in its vocab, so a word that is not there fails"
    _require(unknown in tokens, said)
    prefixed = isinstance(fields.get("continuing_subword_prefix"), str) and _is_size(fields.get("max_input_chars_per_word"))
    said = "the model, a WordPiece, must have a continuing_subword_prefix and max_input_chars_per_word"
    _require(kind != "WordPiece" or prefixed, said)


def _check_merges(fields: Mapping[str, Any], vocabulary: Mapping[str, int]) -> None:
    for name in ("unk_token", "continuing_subword_prefix", "end_of_word_suffix"):
        _require(isinstance(fields.get(name), str | None), f"{name} of its model must be a text or null")
    for name in ("fuse_unk", "byte_fallback", "ignore_merges"):
        _require(isinstance(fields.get(name, False), bool), f"{name} of its model must be true or false")
    dropout: object = fields.get("dropout", 0)
    numeric = dropout is None or (type(dropout) in (int, float) and 0 <= cast("float", dropout) <= 1)
    _require(numeric, "dropout of its model must be null, or a number from 0 to 1")
    merges: object = fields.get("merges")
    _require(isinstance(merges, list), "the model, a BPE, must have a list of merges")
    prefix = len(fields.get("continuing_subword_prefix") or "")
    for merge in cast("list[object]", merges):
        if isinstance(merge, str) and merge.startswith("#version"):
            continue
        pair = cast("Sequence[object]", merge.split(" ") if isinstance(merge, str) else merge)
        two = isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)
        _require(two, "each of the merges of its model must be two tokens")
        left, right = cast("Sequence[str]", pair)
        for token in (left, right, left + right[prefix:]):
            _require(token in vocabulary, f"its merges name {token[:40]!r}, which is not in its vocab")


def _check_pieces(vocabulary: object, unknown: object) -> None:
    pieces = cast("list[object]", vocabulary) if isinstance(vocabulary, list) else []
    formed = isinstance(vocabulary, list) and all(_is_piece(piece) for piece in pieces)
    _require(formed, "the vocab of its model, a Unigram, must be a list of pieces with their scores")
    known = unknown is None or (_is_id(unknown) and cast("int", unknown) < len(pieces))
    _require(known, "unk_id of its model must be null, or the index of a piece")


def _is_piece(piece: object) -> bool:
    parts = cast("list[object]", piece) if isinstance(piece, list) else []
    return len(parts) == 2 and isinstance(parts[0], str) and type(parts[1]) in (int, float)


def _is_id(value: object) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST_ID


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value <= _SIZES


def check_config(config: Mapping[str, Any]) -> None:
    """Check what transformers reads of a parsed tokenizer_config.json.

    Raises:
        TokenizerRefused: It would fail on an entry.
    """
    added: object = config.get("added_tokens_decoder", {})
    _require(isinstance(added, dict), "added_tokens_decoder must be an object, from ids to tokens")
    for number, entry in cast("dict[str, object]", added).items():
        fields = cast("dict[str, object]", entry) if isinstance(entry, dict) else {}
        formed = number.isascii() and number.isdecimal() and isinstance(fields.get("content"), str)
        _require(formed, "added_tokens_decoder must give each id, a whole number, a token with its content")
    for name in _NAMED:
        formed = config.get(name) is None or _content(config[name]) is not None
        _require(formed, f"{name} must be a text, or an object with its content and __type AddedToken")
    if "model_input_names" in config:
        names: object = config["model_input_names"]
        given = cast("list[object]", names) if isinstance(names, list) else []
        said = "model_input_names must be a list with input_ids and attention_mask, which tells padding from text; leave it out"
        _require({"input_ids", "attention_mask"} <= {name for name in given if isinstance(name, str)}, said)
        _require(all(isinstance(name, str) for name in given) and given[0] in _INPUTS, said)
    for name, rule, must in _RULES:
        # A side of null is none, and not the usual one.
        missing = name not in config if name in _SIDED else config.get(name) is None
        _require(missing or rule(config[name]), f"{name} must be {must}")


_SIDED = ("padding_side", "truncation_side")
_RULES: tuple[tuple[str, Callable[[object], bool], str], ...] = (
    ("model_max_length", lambda value: type(value) in (int, float), "a number"),
    ("padding_side", lambda value: value in _SIDES, "left or right"),
    ("truncation_side", lambda value: value in _SIDES, "left or right"),
    ("tokenizer_class", lambda value: isinstance(value, str), "the name of a class of transformers"),
    ("extra_special_tokens", lambda value: isinstance(value, list | dict), "a list of tokens, or an object of named ones"),
    ("additional_special_tokens", lambda value: isinstance(value, list), "a list of tokens"),
)


def named_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the special tokens that a tokenizer_config.json names, with the name of each, in the order of their adding."""
    found: dict[str, str] = {}
    for name in _NAMED:
        content = _content(config.get(name))
        if content is not None:
            found.setdefault(content, name)
    for name in ("extra_special_tokens", "additional_special_tokens"):
        given: object = config.get(name)
        values = cast("dict[str, object]", given).values() if isinstance(given, dict) else given
        for value in cast("Sequence[object]", values if isinstance(given, list | dict) else ()):
            content = _content(value)
            if content is not None:
                found.setdefault(content, name)
    return found


def _content(value: object) -> str | None:
    if isinstance(value, dict):
        fields = cast("dict[str, object]", value)
        value = fields.get("content") if fields.get("__type") == "AddedToken" else None
    return value if isinstance(value, str) else None
