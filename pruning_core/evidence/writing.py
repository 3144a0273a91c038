"""Text that the dense model writes itself, as calibration samples beside the user's text.

What a model can do off the domain of its calibration text is what pruning costs first: nothing asks the repair to keep it.
The model's own writing covers what it was trained on, needs no data, and belongs to no domain (data-free calibration, as in
LLM-QAT, Liu et al. 2023, arXiv 2305.17888, section 3.1: a random first token, then samples of the model's own predictions).

Texts do not end: they are as long as the blocks that language models are calibrated and judged on.
"""

from __future__ import annotations

import copy
from array import array
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch

from pruning_core.machine.precision import products_in
from pruning_core.shapes import Int
from pruning_core.spec.calibration import texts_side_by_side
from pruning_core.tasks.batch import Encoded, TokenLabelled
from pruning_core.tasks.language import end_tokens

if TYPE_CHECKING:
    from torch import Tensor

    from pruning_core.tasks.base import TaskModel

# The likeliest tokens, from which each token is drawn: rarer ones are noise that a small model does not recover from.
_LIKELIEST = 200


def write(
    model: TaskModel,
    count: int,
    length: int,
    draws: torch.Generator,
    on_text: Callable[[int], None] = lambda _done: None,
    *,
    dtype: torch.dtype = torch.float32,
    enough: Callable[[int], bool] = lambda _done: False,
) -> list[array[int]]:
    """Let a causal language model write texts, each from a random first token.

    Args:
        model: The dense model.
        count: Number of texts, at most.
        length: Tokens of each text, at least 2.
        draws: Generator of the first tokens, and of the seed for all others.
        on_text: Called after each batch with the number of texts that are written.
        dtype: Format of matrix products.
        enough: Told the same; where it says so, no more are written.
    """
    begin, ordinary = _opening(model), _known(model, without=model.tokenizer.all_special_ids)
    firsts = ordinary[torch.randint(len(ordinary), (count,), generator=draws)]
    going_on = _known(model, without=end_tokens(model)).to(model.device)
    tokens = torch.Generator(model.device).manual_seed(int(torch.randint(2**31, (), generator=draws)))
    texts: list[array[int]] = []
    with torch.inference_mode(), _writer(model, dtype) as writer:
        for own in firsts.split(texts_side_by_side(length)):
            prompt = torch.cat([begin.expand(len(own), -1), own[:, None]], 1)[:, :length].to(model.device)
            written = _continued(writer, prompt, length, going_on, tokens)
            texts += [array("l", row) for row in written.tolist()]
            on_text(len(texts))
            if enough(len(texts)):
                break
    return texts


@contextmanager
def _writer(model: TaskModel, dtype: torch.dtype) -> Generator[Any]:
    """Give the module that writes in a format.

    On a CPU it is a copy in bfloat16: products of a few rows would convert all weights for each token.
    """
    if dtype == torch.bfloat16 and model.device.type == "cpu" and model.pages is None:
        yield copy.deepcopy(cast("Any", model.model)).to(dtype)
        return
    with products_in(dtype, model.device):
        yield model.model


def _continued(
    writer: Any, prompt: Int[Tensor, "b p"], length: int, allowed: Int[Tensor, " v"], draws: torch.Generator
) -> Int[Tensor, "b s"]:
    """Continue prompts to a length by allowed tokens.

    ``generate`` would draw each token from the whole vocabulary, which takes longer than the model does.
    """
    text = given = prompt
    cache: Any = None
    while text.shape[1] < length:
        said = writer(input_ids=given, past_key_values=cache, use_cache=True)
        cache = getattr(said, "past_key_values", None)
        # What is not finite is told of by the scores, with the layer that it is from.
        logits = said.logits[:, -1].float().nan_to_num().index_select(1, allowed)
        likely = logits.topk(min(_LIKELIEST, len(allowed)))
        drawn = likely.indices.gather(1, torch.multinomial(likely.values.softmax(-1), 1, generator=draws))
        token = allowed[drawn]
        text = torch.cat([text, token], 1)
        given = text if cache is None else token
    return text


def _opening(model: TaskModel) -> Tensor:
    """Return what the tokenizer puts before every text, (1, n): with some models nothing makes sense without it."""
    begin = cast("int | None", model.tokenizer.bos_token_id)
    found = model.tokenizer("")["input_ids"]
    return torch.tensor([found[:1] if begin is not None and found[:1] == [begin] else []], dtype=torch.long)


def _known(model: TaskModel, *, without: Sequence[int]) -> Int[Tensor, " v"]:
    """Return the tokens that both tokenizer and model have, but for some."""
    both = min(len(model.tokenizer), int(cast("Tensor", model.model.get_input_embeddings().weight).shape[0]))
    left_out = set(without)
    return torch.tensor([token for token in range(both) if token not in left_out], dtype=torch.long)


def interleaved(encoded: Encoded, chosen: list[int], texts: list[array[int]]) -> TokenLabelled:
    """Return the chosen samples of a causal language model and texts in turns, so that held-out samples are of both."""
    blocks = [encoded.columns["input_ids"][index] for index in chosen]
    places = [((place + 0.5) / len(own), block) for own in (blocks, texts) for place, block in enumerate(own)]
    every = [block for _, block in sorted(places, key=lambda placed: placed[0])]
    return TokenLabelled.unpadded(encoded.tokenizer, every, every)
