"""Text that the dense model writes itself, as calibration samples beside the user's text.

What a model can do off the domain of its calibration text is what pruning costs first: nothing asks the repair to keep it.
The model's own writing covers what it was trained on, needs no data, and belongs to no domain (data-free calibration, as in
LLM-QAT, Liu et al. 2023, arXiv 2305.17888, section 3.1: a random first token, then samples of the model's own predictions).

Texts do not end: they are as long as the blocks that language models are calibrated and judged on.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch

from pruning_core.spec.calibration import texts_side_by_side
from pruning_core.tasks.batch import Encoded, TokenLabelled

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
) -> list[array[int]]:
    """Let a causal language model write texts, each from a random first token.

    Args:
        model: The dense model.
        count: Number of texts.
        length: Tokens of each text, at least 2.
        draws: Generator of the first tokens, and of the seed for all others.
        on_text: Called after each batch with the number of texts that are written.
    """
    begin, ordinary = _opening(model), _ordinary(model)
    firsts = ordinary[torch.randint(len(ordinary), (count,), generator=draws)]
    seed = int(torch.randint(2**31, (), generator=draws))
    generate = cast("Any", model.model).generate
    texts: list[array[int]] = []
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.inference_mode():
        torch.manual_seed(seed)  # transformers draws from torch's own generator
        for own in firsts.split(texts_side_by_side(length)):
            prompt = torch.cat([begin.expand(len(own), -1), own[:, None]], 1)[:, :length].to(model.device)
            written: Tensor = (
                prompt
                if prompt.shape[1] == length
                else generate(
                    prompt,
                    attention_mask=torch.ones_like(prompt),
                    do_sample=True,
                    temperature=1.0,
                    top_k=_LIKELIEST,
                    top_p=1.0,
                    repetition_penalty=1.0,
                    num_beams=1,
                    min_length=length,
                    max_length=length,
                    remove_invalid_values=True,  # what is not finite is told of by the scores, with the layer that it is from
                    pad_token_id=int(own[0]),  # no text ends early, so nothing is padded
                )
            )
            texts += [array("l", row) for row in written.tolist()]
            on_text(len(texts))
    return texts


def _opening(model: TaskModel) -> Tensor:
    """Return what the tokenizer puts before every text, (1, n): with some models nothing makes sense without it."""
    begin = cast("int | None", model.tokenizer.bos_token_id)
    found = model.tokenizer("")["input_ids"]
    return torch.tensor([found[:1] if begin is not None and found[:1] == [begin] else []], dtype=torch.long)


def _ordinary(model: TaskModel) -> Tensor:
    """Return the tokens that are not special, of those that both tokenizer and model have."""
    special = set(model.tokenizer.all_special_ids)
    both = min(len(model.tokenizer), int(cast("Tensor", model.model.get_input_embeddings().weight).shape[0]))
    return torch.tensor([token for token in range(both) if token not in special], dtype=torch.long)


def interleaved(encoded: Encoded, chosen: list[int], texts: list[array[int]]) -> TokenLabelled:
    """Return the chosen samples of a causal language model and texts in turns, so that held-out samples are of both."""
    blocks = [encoded.columns["input_ids"][index] for index in chosen]
    places = [((place + 0.5) / len(own), block) for own in (blocks, texts) for place, block in enumerate(own)]
    every = [block for _, block in sorted(places, key=lambda placed: placed[0])]
    return TokenLabelled.unpadded(encoded.tokenizer, every, every)
