"""Decoders that write: continuations that end, and continuations that repeat themselves, both greedy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from pruning_core.measure.ledger.base import Part, Tell
from pruning_core.measure.ledger.rows import Subject
from pruning_core.measure.paired import LEAST_ROWS
from pruning_core.report.ledger import LedgerRow
from pruning_core.tasks.base import TaskModel
from pruning_core.tasks.chats import prompt_of
from pruning_core.tasks.language import end_tokens
from pruning_core.tasks.row_forms import means, shares

LONGEST = 48
PROMPTS = 24
_PROMPT_TOKENS = 12
_ASKED = 48
_GRAM = 4
# For models with a chat template: short questions, whose answers are short.
_QUESTIONS = (
    *("What is {a} plus {b}?", "Name a number between {a} and {c}.", "Is {a} larger than {b}? Answer yes or no."),
    *("Write the number {a} in words.", "Which is smaller, {a} or {b}?", "What comes after {a}? Answer with one number."),
)


@dataclass(frozen=True, slots=True)
class Written:
    """The new tokens of one continuation, its end excluded, and whether it ended."""

    tokens: tuple[int, ...]
    ended: bool


@dataclass(frozen=True, slots=True)
class WritingPart(Part):
    """Greedy continuations of prompts. Those of equal length run together, so that no padding is needed."""

    groups: tuple[tuple[tuple[int, ...], ...], ...]

    @classmethod
    def of(cls, model: TaskModel, texts: Sequence[str]) -> WritingPart | None:
        """Make prompts: questions where the chat template takes them, else beginnings of texts; None where they are too few."""
        tokenizer = cast("Any", model.tokenizer)
        limit = model.longest(_PROMPT_TOKENS + LONGEST) - LONGEST
        asked = [_QUESTIONS[i % len(_QUESTIONS)].format(a=11 + i, b=99 - i, c=50 + i) for i in range(_ASKED)]
        questions = [prompt for question in asked if (prompt := prompt_of(model.tokenizer, question)) is not None]
        if len(questions) == len(asked):
            prompts = [list(tokenizer(prompt, add_special_tokens=False)["input_ids"]) for prompt in questions]
        else:
            begun = (tokenizer(text[:400], verbose=False)["input_ids"][:_PROMPT_TOKENS] for text in texts[: 4 * PROMPTS])
            prompts = [ids for ids in begun if len(ids) == _PROMPT_TOKENS <= limit][:PROMPTS]
        by_length: dict[int, list[tuple[int, ...]]] = {}
        for prompt in prompts:
            by_length.setdefault(len(prompt), []).append(tuple(prompt))
        chosen: list[tuple[tuple[int, ...], ...]] = []
        left = PROMPTS
        for own in sorted(by_length.values(), key=len, reverse=True):  # few and large groups: each takes as long as another
            chosen += [tuple(own[:left])] if left else []
            left -= len(own[:left])
        return cls(tuple(chosen)) if PROMPTS - left >= LEAST_ROWS else None

    @property
    def steps(self) -> int:
        """Number of groups."""
        return len(self.groups)

    def observe(self, model: TaskModel, on_step: Tell) -> list[Written]:
        """Write a continuation of each prompt, of at most `LONGEST` tokens."""
        from transformers import GenerationConfig

        ends = end_tokens(model)
        padding = model.tokenizer.pad_token_id
        config = GenerationConfig(
            max_new_tokens=LONGEST,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            eos_token_id=ends or None,
            pad_token_id=padding if padding is not None else (ends[0] if ends else 0),
        )
        found: list[Written] = []
        for done, group in enumerate(self.groups, start=1):
            ids = torch.tensor(group, device=model.device)
            with torch.inference_mode():
                written = cast("Any", model.model).generate(
                    input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config
                )
            found += [_cut(own, ends) for own in cast("list[list[int]]", written[:, ids.shape[1] :].tolist())]
            on_step(done)
        return found

    def rows(self, dense: list[Written], pruned: list[Written], seed: int) -> list[LedgerRow]:
        """Judge the ends where the dense model's continuations end, and the repetition of all that are long enough."""
        endings, repetition = self.subjects
        ended = [after.ended for before, after in zip(dense, pruned, strict=True) if before.ended]
        if len(ended) < LEAST_ROWS:
            said = f"the dense model ended {len(ended)} of {len(dense)} continuations within {LONGEST} tokens: too few to judge"
            first = endings.lacking(said, rows=len(ended))
        else:
            first = endings.row(shares(np.ones(len(ended), dtype=np.bool_), np.array(ended)), seed)
        pairs = [(_repeated(a), _repeated(b)) for a, b in zip(dense, pruned, strict=True)]
        told = np.array([pair for pair in pairs if None not in pair], dtype=np.float64).reshape(-1, 2)
        if len(told) < LEAST_ROWS:
            said = f"{len(told)} of {len(dense)} continuations have {_GRAM} tokens or more in both models: too few to judge"
            return [first, repetition.lacking(said, rows=len(told))]
        return [first, repetition.row(means(told[:, 0], told[:, 1]), seed)]

    @property
    def subjects(self) -> tuple[Subject, Subject]:
        """Endings and repetition."""
        return Subject("writing to an end", "endings", "continuation"), Subject(
            "writing without repetition", "repetition", "continuation"
        )


def _cut(tokens: list[int], ends: list[int]) -> Written:
    for at, token in enumerate(tokens):
        if token in ends:
            return Written(tuple(tokens[:at]), ended=True)
    return Written(tuple(tokens), ended=False)


def _repeated(own: Written) -> float | None:
    """Return the share of four-grams that occurred before in the same continuation; None for those too short to have any."""
    grams = [own.tokens[at : at + _GRAM] for at in range(len(own.tokens) - _GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else None
