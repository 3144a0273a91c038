"""How well a language model knows its calibration text, beside what it writes itself.

Nothing is wrong with a text in a language that the model hardly knows, but what the model can do is then measured on text that
it does badly on, and is pruned for that. A loss a token says little: a tokenizer cuts what it does not know into small pieces,
each of them easy (SmolLM2: 3.5 for English prose, 2.8 for Chinese). A loss a byte can be compared (Gao et al. 2020, arXiv
2101.00027, section 3.1).

SmolLM2-135M needs 0.84 bits a byte for its own writing and for Python, and 1.0 to 1.3 for English (manuals, RFCs, Debian's
handbook, Jane Austen): at most 1.6 times as many. For the same handbook in Spanish, French, Japanese, Chinese and German it
needs 1.6 to 2.0, 1.9 to 2.4 times as many, although some of its pages are in English still; for random letters, 5 (8 blocks of
128 tokens each).
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import cast

import torch

from pruning_core.evidence.calibration import batched, evaluation_tokens
from pruning_core.spec.prune import TaskSpec
from pruning_core.tasks.base import TaskModel
from pruning_core.tasks.batch import TokenLabelled

# Samples of either kind that are compared, and the tokens of each: 2 to 3 % of the work of scoring, at the defaults.
_SAMPLES, _TOKENS = 24, 256
_UNFAMILIAR = 1.7


def note_on_familiarity(
    model: TaskModel, task: TaskSpec, samples: Sequence[array[int]], written: Sequence[array[int]]
) -> list[str]:
    """Warn if a language model needs far more bits for a byte of the samples than for a byte of its own writing.

    Args:
        model: The dense model.
        task: The task of a language model.
        samples: Tokens of the user's samples.
        written: Tokens of texts that the model wrote; none, and nothing is said.
    """
    if not written:
        return []
    theirs, own = bits_per_byte(model, task, samples), bits_per_byte(model, task, written)
    if not (own > 0 and theirs >= _UNFAMILIAR * own):  # not finite: told of by the scores, with the layer
        return []
    said = (
        f"the model predicts the calibration text badly: {theirs:.2f} bits a byte, {theirs / own:.1f} times as many as for text"
        f" of its own ({own:.2f}). The text may be in a language, or of a kind (code, tables, random strings), that the model "
        "hardly knows, and what it does well is then not in it: calibrate on text like that which the model will read"
    )
    return [said]


def bits_per_byte(model: TaskModel, task: TaskSpec, texts: Sequence[array[int]]) -> float:
    """Compute the bits of all tokens after the first, by the bytes that they stand for, over evenly spaced texts.

    Returns:
        The ratio; NaN where there are no bytes.
    """
    count = min(_SAMPLES, len(texts))
    some = [texts[round(at * (len(texts) - 1) / max(1, count - 1))][:_TOKENS] for at in range(count)]
    encoded = TokenLabelled.unpadded(model.tokenizer, some, some)
    tokens = batched(encoded, batch_tokens=evaluation_tokens(model.device, model.entries), keep=False)
    with torch.inference_mode():
        nats = sum(float(found[0]) for batch in tokens.batches for found in model.family.observe(model, batch, task))
    said = (cast("str", model.tokenizer.decode(own[1:].tolist(), skip_special_tokens=True)) for own in some)
    size = sum(len(text.encode()) for text in said)
    return nats / math.log(2) / size if size else math.nan
