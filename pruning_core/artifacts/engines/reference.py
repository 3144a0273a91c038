"""The reference that engines are compared with: the written checkpoint in float32, run by transformers in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from pruning_core.artifacts.probes import ProbeInput
from pruning_core.tasks.base import PROVEN_ENTRIES, TaskModel

# Most likely tokens that are kept of a position; an engine's few most likely ones are among them, unless it is wrong.
KEPT = 64


@dataclass(frozen=True, slots=True)
class Expected:
    """One position of a text.

    Attributes:
        logprobs: Log-probabilities of the most likely tokens and of the one that follows, by id.
        first: The most likely token.
        margin: By how much its logit exceeds the next one's.
        least: The log-probability of the last of the most likely; all that are not listed have less.
    """

    logprobs: dict[int, float]
    first: int
    margin: float
    least: float


@dataclass(frozen=True, slots=True)
class Reference:
    """What an engine must reproduce: of models that generate the texts and prompts, of others the outputs.

    Attributes:
        texts: The positions of each text.
        written: The greedy continuation of each prompt: tokens, and the margin of each.
        outputs: The outputs on each batch of inputs, reduced to what is compared.
    """

    texts: tuple[tuple[Expected, ...], ...] = ()
    written: tuple[tuple[tuple[int, ...], tuple[float, ...]], ...] = ()
    outputs: tuple[Tensor, ...] = ()


def written_reference(
    model: TaskModel, texts: Sequence[Sequence[int]], prompts: Sequence[Sequence[int]], new_tokens: int
) -> Reference:
    """Score texts, and continue prompts, with a model that generates."""
    with torch.inference_mode():
        scored = tuple(_scored(_logits(model, text), text) for text in texts)
        return Reference(texts=scored, written=tuple(_continued(model, prompt, new_tokens) for prompt in prompts))


def passed_reference(model: TaskModel, probes: Sequence[ProbeInput]) -> tuple[list[dict[str, Any]], Reference]:
    """Run a model on probes.

    Returns:
        Its inputs as named lists, and the outputs that the task reads, before they are pooled or otherwise worked on.
    """
    family, inputs, outputs = model.family, list[dict[str, Any]](), list[Tensor]()
    for probe in probes:
        batch = family.probe_inputs(model, family.probe_texts(probe.texts), model.longest(probe.length)).to(model.device)
        with torch.inference_mode():
            result = model.model(**batch.inputs)
        found = [cast("Tensor", getattr(result, name)) for name in family.reads]
        stacked = found[0] if len(found) == 1 else torch.stack(found, dim=-1)
        outputs.append(_reduced(stacked.double().cpu(), batch.inputs.get("attention_mask")))
        inputs.append({name: value.cpu().tolist() for name, value in batch.inputs.items()})
    return inputs, Reference(outputs=tuple(outputs))


def _reduced(found: Tensor, mask: Tensor | None) -> Tensor:
    """Reduce outputs to what is compared, as `running.reduced` does: of long vectors for every token, a part."""
    if found.ndim > 2:
        entries = found.shape[-1]
        if entries > PROVEN_ENTRIES:
            index = [entry * (entries - 1) // (PROVEN_ENTRIES - 1) for entry in range(PROVEN_ENTRIES)]
            found = torch.cat([found[..., index], found.logsumexp(-1, keepdim=True)], dim=-1)
        if mask is not None and mask.shape == found.shape[:2]:
            found = found * mask.cpu().unsqueeze(-1)
        found = found.flatten(1)
    return found.float()


def _logits(model: TaskModel, tokens: Sequence[int]) -> Tensor:
    given = torch.tensor([list(tokens)], device=model.device)
    return cast("Any", model.model)(input_ids=given).logits[0].float().cpu()


def _scored(logits: Tensor, tokens: Sequence[int]) -> tuple[Expected, ...]:
    logprobs = logits[:-1].double().log_softmax(-1)
    kept = logprobs.topk(min(KEPT, logprobs.shape[-1]))
    found: list[Expected] = []
    for position, (values, ids) in enumerate(zip(kept.values.tolist(), kept.indices.tolist(), strict=True)):
        known = dict(zip(ids, values, strict=True))
        following = tokens[position + 1]
        known[following] = float(logprobs[position, following])
        found.append(Expected(known, ids[0], values[0] - values[1] if len(values) > 1 else 0.0, values[-1]))
    return tuple(found)


def _continued(model: TaskModel, prompt: Sequence[int], count: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Write greedily, without a cache: what one would do wrong shows in the engines, not here."""
    tokens, margins = list(prompt), list[float]()
    for _step in range(count):
        best = _logits(model, tokens)[-1].topk(2)
        tokens.append(int(best.indices[0]))
        margins.append(float(best.values[0] - best.values[1]))
    return tuple(tokens[len(prompt) :]), tuple(margins)
