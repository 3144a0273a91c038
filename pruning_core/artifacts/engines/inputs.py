"""What engines are given and must reproduce: texts and prompts as tokens for models that generate, probes for others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from pruning_core.artifacts.engines.messages import EngineTiming
from pruning_core.artifacts.engines.reference import Reference, passed_reference, written_reference
from pruning_core.artifacts.probes import ProbeInput, answer, texts_of
from pruning_core.data.rows import Rows
from pruning_core.engines.registry import use_of
from pruning_core.spec.prune import PruneSpec
from pruning_core.tasks.base import TaskModel

# Texts that are scored, tokens of each, and the shortest that says something.
TEXTS = 20
LONGEST, SHORTEST = 64, 16
# Prompts that are continued: the beginnings of so many texts, of so many tokens, by so many.
PROMPTS, PROMPT, NEW_TOKENS = 2, 12, 32
# The clock's prompt, the tokens written after it, and turns of each model.
TIMED_PROMPT, TIMED_TOKENS, TURNS = 128, 16, 3


@dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs and the reference of one checkpoint; see `EngineRequest`."""

    reference: Reference
    texts: list[list[int]] = field(default_factory=list[list[int]])
    prompts: list[list[int]] = field(default_factory=list[list[int]])
    new_tokens: int = 0
    positions: int = 2**20
    passes: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    timing: EngineTiming = field(default_factory=EngineTiming)
    sentences: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    sentence_timing: dict[str, Any] = field(default_factory=dict[str, Any])
    sentence_reference: Reference = field(default_factory=Reference)


def inputs_for(pruned: TaskModel, held_out: Rows, probes: Sequence[ProbeInput], spec: PruneSpec) -> Inputs:
    """Make the inputs for a checkpoint, and run it on them."""
    if use_of(spec.task.type) == "generation":
        return _for_generation(pruned, held_out)
    return _for_outputs(pruned, probes, spec)


def _for_generation(pruned: TaskModel, held_out: Rows) -> Inputs:
    most = pruned.longest(TIMED_PROMPT + TIMED_TOKENS)
    texts = tokens_of(pruned, held_out)
    prompts = [text[: min(PROMPT, len(text))] for text in texts[:PROMPTS]]
    new_tokens = max(1, min(NEW_TOKENS, most - PROMPT))
    joined = [token for text in texts for token in text]
    prompt = (joined * (TIMED_PROMPT // len(joined) + 1))[: max(1, most - TIMED_TOKENS)]
    return Inputs(
        reference=written_reference(pruned, texts, prompts, new_tokens),
        texts=texts,
        prompts=prompts,
        new_tokens=new_tokens,
        positions=pruned.longest(2**20),
        timing=EngineTiming(prompt=prompt[:TIMED_PROMPT], new_tokens=min(TIMED_TOKENS, most - 1), turns=TURNS),
    )


def tokens_of(model: TaskModel, held_out: Rows) -> list[list[int]]:
    """Tokenise held-out texts; one that is short is joined with those after it."""
    longest = model.longest(LONGEST)
    rows = [" ".join(row) for row in held_out.texts]
    found: list[list[int]] = []
    for first in range(len(rows)):
        ids: list[int] = []
        for last in range(first + 1, min(first + 9, len(rows) + 1)):
            ids = list(model.tokenizer(" ".join(rows[first:last]), truncation=True, max_length=longest)["input_ids"])
            if len(ids) >= min(SHORTEST, longest):
                break
        if len(ids) > 1:
            found.append(ids)
        if len(found) == TEXTS:
            break
    if not found:  # no text has two tokens: any tokens will do to compare engines
        known = torch.randint(model.entries, (TEXTS, longest), generator=torch.Generator().manual_seed(0))
        return known.tolist()
    return found


def _for_outputs(pruned: TaskModel, probes: Sequence[ProbeInput], spec: PruneSpec) -> Inputs:
    passes, reference = passed_reference(pruned, probes)
    length = pruned.input_length(spec.latency.length)
    drawn = pruned.family.random_inputs(pruned, spec.latency.batch, length, torch.Generator().manual_seed(spec.seed))
    timed = {name: value.tolist() for name, value in drawn.items()}
    # Inputs that the clock's batch lacks, such as the types of segments, are all the first type.
    timed |= {
        name: torch.zeros_like(drawn["input_ids"]).tolist() for name in passes[0] if name not in timed and "input_ids" in drawn
    }
    inputs = Inputs(reference, passes=passes, timing=EngineTiming(inputs=timed, turns=TURNS))
    if pruned.embedder is None:
        return inputs
    sentences: list[dict[str, Any]] = []
    for probe in probes:
        texts = [row[0] if len(row) == 1 else list(row) for row in texts_of(pruned, probe)]  # as `answer` cuts them
        sentences.append({"texts": texts, "length": pruned.longest(probe.length)})
    return Inputs(
        reference,
        passes=passes,
        timing=inputs.timing,
        sentences=sentences,
        sentence_timing=sentences[-1] | {"batch": len(sentences[-1]["texts"])},
        sentence_reference=Reference(outputs=answer(pruned, probes)),
    )
