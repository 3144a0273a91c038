"""The calibration blocks of joined texts: drawn over documents, of which none makes up most where the others have enough.

Blocks are cut from documents in a drawn order, until there are as many as a request asks for. Drawn over tokens, one book among
a thousand letters would be all that the model is pruned for; drawn over documents alone, one sample each, most of a few long
chapters would be left out. So each document gives at most an eighth of the tokens, or more where the others have too few.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import torch

from pruning_core.data.rows import Rows
from pruning_core.tasks.base import TaskModel, known_tokens
from pruning_core.tasks.batch import TokenLabelled
from pruning_core.tasks.language import blocks_of, documents_of

# A document gives at most so large a part of the tokens: eight documents at least, and ordinary chapters stay whole.
_PART = 8
# Above this share, what is said of the calibration text is said of one document.
_MOST = 0.5


def calibration_blocks(
    model: TaskModel, rows: Rows, limit: int, samples: int, draws: torch.Generator
) -> tuple[TokenLabelled, list[str]]:
    """Join rows in their order and cut them into blocks, long rows shortened so that the first blocks are of many rows.

    Args:
        model: A language model; its tokenizer makes the tokens.
        rows: Texts in a drawn order.
        limit: Tokens of a block.
        samples: How many blocks are wanted.
        draws: Generator of the places where what stays of a long document begins.

    Returns:
        The blocks, and warnings for whoever prepared the data: too little text, or text of one document alone.

    Raises:
        DatasetInvalid: The rows have fewer than two tokens in all.
        ModelUnreadable: The tokenizer makes tokens that the model does not have.
    """
    whole = documents_of(model.tokenizer, rows, limit)
    documents = shared_out(whole, samples * limit, draws)
    blocks = blocks_of(model.tokenizer, documents, limit)
    known_tokens(model, blocks)
    return blocks, [*_too_few(blocks, limit, samples), *_of_one(documents, samples * limit)]


def shared_out(documents: Sequence[array[int]], wanted: int, draws: torch.Generator) -> list[array[int]]:
    """Shorten documents to an eighth of the wanted tokens, or to the length at which they have as many as are wanted.

    What stays of a document is one piece from a drawn place.
    """
    most = max(wanted // _PART, _level([len(own) for own in documents], wanted))
    shortened: list[array[int]] = []
    for own in documents:
        start = int(torch.randint(len(own) - most + 1, (), generator=draws)) if len(own) > most else 0
        shortened.append(own[start : start + most])
    return shortened


def _level(lengths: Sequence[int], wanted: int) -> int:
    """Return the least length at which lengths, none of them counted further, have a sum of at least ``wanted``."""
    left = wanted
    ascending = sorted(lengths)
    for place, length in enumerate(ascending):
        rest = len(ascending) - place
        if length * rest >= left:
            return -(-left // rest)
        left -= length
    return max(lengths, default=0)


def _too_few(blocks: TokenLabelled, limit: int, samples: int) -> list[str]:
    lengths = blocks.lengths
    if len(lengths) >= samples:
        return []
    made = f"{len(lengths)} samples of {limit} tokens" if len(lengths) > 1 else f"one sample of {lengths[0]} tokens"
    said = (
        f"the training text makes {made} where {samples} of {limit} were asked for; all of it was used: give more text, or let "
        "the model write more of its own (calibration.self_written)"
    )
    return [said]


def _of_one(documents: Sequence[array[int]], wanted: int) -> list[str]:
    """Warn if most of the tokens are of one of several documents."""
    longest = max(map(len, documents))
    share = longest / min(wanted, sum(map(len, documents)))
    if len(documents) == 1 or share <= _MOST:
        return []
    said = (
        f"{share:.0%} of the calibration text is of one document, as the other {len(documents) - 1} that were drawn have too "
        "few tokens; the model is pruned for that one above all"
    )
    return [said]
