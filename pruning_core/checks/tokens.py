"""Checks of a tokenizer against the model's embeddings: every token that a text can become has a row. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pruning_core.arch.signatures import BlockSignature
from pruning_core.checks.tokenizer_class import check_tokenizer_class
from pruning_core.errors import ModelUnreadable
from pruning_core.files.tokenizer import TokenizerFacts, read_tokenizer
from pruning_core.spec.tasks import KINDS, TaskType

# Tables of embeddings by tokens. Those of an encoder and a decoder may be one, stored as ``shared``.
_TABLES = re.compile(r"(.*\.)?(word_embeddings|embed_tokens|wte|tok_embeddings|shared)\.weight")
_DECODERS = re.compile(r"(.*\.)?decoder\..*")
_READS_MASKS = "AutoModelForMaskedLM"
_CLASSIFIES = "AutoModelForSequenceClassification"
_WRITES = "AutoModelForSeq2SeqLM"
# Model types that number the tokens of a text by asking which of them are padding.
NUMBERED_BY_PADDING = frozenset({"camembert", "m2m_100", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl"})
_SHOWN = 40


def check_tokens(
    task_type: TaskType | None,
    folder: Path,
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    family: BlockSignature,
) -> tuple[str, ...]:
    """Check that a tokenizer can be made of its files, and that its tokens, and the config's, are rows of the embeddings.

    Args:
        task_type: The task type; None where it is not known yet.
        folder: The checkpoint.
        config: Its configuration.
        shapes: Shape of each tensor, by name.
        family: Signature of the blocks.

    Returns:
        What users should know: what was not looked at, and tokens without a row that no text becomes.

    Raises:
        ModelUnreadable: They do not fit.
    """
    if task_type is not None and KINDS[task_type].reads == "image":
        return ()
    facts = read_tokenizer(folder)
    check_tokenizer_class(folder, config, facts)
    rows = _rows(shapes, decoder=False)
    target_rows = _rows(shapes, decoder=True) or rows
    notes = list(facts.notes)
    masks = task_type is not None and KINDS[task_type].loads_as == _READS_MASKS
    idle = frozenset() if masks else facts.idle
    if task_type == "text-generation":  # its texts are joined by the token that ends one
        idle -= {facts.end}
    if rows is not None:
        notes += _check_ends(facts, rows, idle)
    if target_rows is not None and max(facts.ends_of_target, default=-1) >= target_rows:
        raise _too_many(max(facts.ends_of_target) + 1, target_rows, "target language's tokenizer")
    if rows is not None:
        _check_padding_id(config, rows, family, task_type)
    _check_end_id(config, family, task_type)
    if target_rows is not None:
        notes += _check_named_ids(config, target_rows, sequences=family.decoder is not None)
    return tuple(notes)


def _rows(shapes: Mapping[str, tuple[int, ...]], *, decoder: bool) -> int | None:
    """Return the number of tokens that all of a stack's tables of embeddings know; None where it has no such table."""
    found = [
        shape[0]
        for name, shape in shapes.items()
        if len(shape) == 2 and _TABLES.fullmatch(name) and (_DECODERS.fullmatch(name) is not None) == decoder
    ]
    if not found and not decoder:  # OPT is a decoder alone, and calls it so
        return _rows(shapes, decoder=True)
    return min(found, default=None)


def _check_ends(facts: TokenizerFacts, rows: int, idle: frozenset[str]) -> list[str]:
    beyond = {number: token for number, token in facts.ends.items() if number >= rows}
    used = [token for token in beyond.values() if token not in idle]
    if used:
        raise _too_many(max(facts.ends) + 1, rows, "tokenizer", used[-1])
    shown = ", ".join(sorted(repr(token[:_SHOWN]) for token in beyond.values()))
    return (
        [f"the tokenizer's {shown} has no row in the model's {rows} embeddings; a text that spells it out fails"]
        if beyond
        else []
    )


def _too_many(tokens: int, rows: int, what: str, token: str | None = None) -> ModelUnreadable:
    last = "" if token is None else f" ({token[:_SHOWN]!r} has no row)"
    return ModelUnreadable(
        f"the {what} has {tokens} tokens, the model {rows}; resize its embeddings (model.resize_token_embeddings) or remove "
        f"the added tokens{last}",
        param="model",
    )


def _check_padding_id(config: Mapping[str, Any], rows: int, family: BlockSignature, task_type: TaskType | None) -> None:
    """Refuse a padding token that is none of the model's, or that its code would take for another one."""
    padding: object = config.get("pad_token_id")
    classifies = task_type is not None and KINDS[task_type].loads_as == _CLASSIFIES
    if padding is None:
        if "pad_token_id" in config and (
            config.get("model_type") in NUMBERED_BY_PADDING
            or (family.decoder is not None and task_type is not None and KINDS[task_type].loads_as != _WRITES)
        ):
            raise ModelUnreadable(
                "config.json: pad_token_id is null, and this model cannot do the task without; set it to the tokenizer's",
                param="model",
            )
        return
    if type(padding) is not int:
        raise ModelUnreadable("config.json: pad_token_id must be a whole number or null", param="model")
    if padding >= rows or padding < -rows:
        raise ModelUnreadable(
            f"config.json: pad_token_id {padding} is none of the model's {rows} tokens; set it to the tokenizer's, or to null",
            param="model",
        )
    # A decoder may state -1 for none, and does not look at it, unless it classifies by the last token that is no padding.
    if padding < 0 and (classifies or not family.causal):
        raise ModelUnreadable(
            f"config.json: pad_token_id {padding} is no token; set it to the tokenizer's, by which the model tells padding "
            "from text",
            param="model",
        )


def _check_end_id(config: Mapping[str, Any], family: BlockSignature, task_type: TaskType | None) -> None:
    """Refuse an encoder-decoder that classifies by the state of the token that ends a text, and does not name just one."""
    classifies = task_type is not None and KINDS[task_type].loads_as == _CLASSIFIES
    if classifies and family.decoder is not None and type(config.get("eos_token_id", 0)) is not int:
        raise ModelUnreadable(
            "config.json: eos_token_id must be one whole number, the token by whose state this model classifies", param="model"
        )


def _check_named_ids(config: Mapping[str, Any], rows: int, *, sequences: bool) -> list[str]:
    """Check the other special tokens that a configuration names: an encoder-decoder reads them, others generate by them."""
    notes: list[str] = []
    for name in ("decoder_start_token_id", "bos_token_id", "eos_token_id", "sep_token_id"):
        stated: object = config.get(name)
        numbers = cast("list[object]", stated) if isinstance(stated, list) else [stated]
        if not all(number is None or type(number) is int for number in numbers):
            raise ModelUnreadable(f"config.json: {name} must be a whole number or null", param="model")
        wrong = [number for number in numbers if number is not None and not 0 <= cast("int", number) < rows]
        if not wrong:
            continue
        if sequences and wrong[0] != -1:
            raise ModelUnreadable(
                f"config.json: {name} {wrong[0]} is none of the model's {rows} tokens; set it to the tokenizer's", param="model"
            )
        if wrong[0] != -1:
            notes.append(f"config.json's {name} {wrong[0]} is none of the model's {rows} tokens; generation will not meet it")
    return notes
