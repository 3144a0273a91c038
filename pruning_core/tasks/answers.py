"""Question answering: find the span of a context that answers a question."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from pruning_core.errors import DatasetInvalid
from pruning_core.shapes import Float
from pruning_core.spec.labels import Answers
from pruning_core.tasks.base import Judged, Observed, TaskFamily, collect_, encoded_by, portions, uniforms
from pruning_core.tasks.batch import Batch, Encoded
from pruning_core.tasks.classification import kl, labels
from pruning_core.tasks.lengths import part_of
from pruning_core.tasks.scoring import Replies, exact_match, word_f1
from pruning_core.tasks.tokens import sampled

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase

    from pruning_core.data.rows import Rows
    from pruning_core.tasks.base import TaskModel

# In tokens, as in SQuAD's own baselines.
_LONGEST_ANSWER = 30
# Consecutive windows share one part in this many of their context tokens.
_OVERLAP = 3
# Questions that are looked at together.
_PORTION = 256


@dataclass(frozen=True)
class Questions(Encoded):
    """Questions with their contexts.

    Attributes:
        spans: For each sample two numbers a token: where its characters begin and end in the context; -1 for tokens outside it.
        owners: For each sample the index of its row: a long context is read in several windows.
        cut_off: Share of the answered rows whose answers lie whole in no window.
        cut_questions: Share of the rows whose questions were cut, as they alone would fill a sample.
    """

    spans: Sequence[array[int]] = ()
    owners: Sequence[int] = ()
    cut_off: float = 0.0
    cut_questions: float = 0.0


class QuestionAnswering(TaskFamily):
    """Extractive question answering: the model finds the first and the last token of an answer."""

    reads = ("start_logits", "end_logits")
    example = (("one two", "three four five"), ("six", "seven"))

    def encode_with(self, tokenizer: PreTrainedTokenizerBase, rows: Rows, limit: int) -> Questions:
        """Make a sample of each window of a row: the question, and as much of the context as fits beside it.

        A question that leaves no room for its context is cut to half of a sample: its row counts, and the report says so.
        Windows overlap by a third, as is usual (128 of 384 tokens), so that an answer is whole in one of them. The first
        windows of all rows come before the second ones. The label of a window without the answer is the first token, by which
        models say that there is no answer.

        Raises:
            DatasetInvalid: A question leaves no room for its context, or no answer lies whole in a window.
        """
        if not tokenizer.is_fast:
            raise DatasetInvalid(
                "question-answering needs a fast tokenizer, which tells where its tokens begin; put tokenizer.json beside the "
                "weights",
                param="model",
            )
        asked, cut = _questions(tokenizer, [texts[0] for texts in rows.texts], limit)
        columns: dict[str, list[array[int]]] = {}
        spans: list[array[int]] = []
        ends: list[tuple[int, int]] = []
        owners: list[int] = []
        waiting = [(row, 0) for row in range(len(rows))]
        while waiting:  # of what is left of a context, a part: all of it would take a book's length squared
            following: list[tuple[int, int]] = []
            for first, texts in portions([(asked[row], part_of(rows.texts[row][1], limit, start)) for row, start in waiting]):
                encoded = self._cut(tokenizer, texts, limit)
                collect_(columns, tokenizer, encoded)
                for at, (row, start) in enumerate(waiting[first : first + len(texts)]):
                    offsets = cast("list[tuple[int, int]]", encoded["offset_mapping"][at])
                    own = _spans(encoded.sequence_ids(at), offsets, start)
                    if max(own) < 0 and texts[at][1].strip():
                        raise _no_room(limit)
                    context = rows.texts[row][1]
                    answers = None if rows.labels is None else cast("Answers", rows.labels[row])
                    spans.append(own)
                    owners.append(row)
                    ends.append((0, 0) if answers is None else _locate(answers, context, own))
                    further = next_window(own, context)
                    following += [] if further is None else [(row, further)]
            waiting = following
        answered = {row for row, own in enumerate(rows.labels or ()) if cast("Answers", own).texts}
        missed = answered - {row for row, at in zip(owners, ends, strict=True) if at != (0, 0)}
        if answered and missed == answered:
            raise DatasetInvalid(
                f"none of {len(answered)} answered questions has an answer that lies whole within {limit} tokens of question "
                "and context; raise max_length",
                param="calibration.max_length",
            )
        labelled = None if rows.labels is None else torch.tensor(ends)
        return Questions(
            tokenizer, columns, labelled, spans, owners, len(missed) / max(1, len(answered)), cut / max(1, len(rows))
        )

    def _cut(self, tokenizer: PreTrainedTokenizerBase, texts: Sequence[tuple[str, ...]], limit: int) -> BatchEncoding:
        columns = self.columns_of(texts)
        try:
            return encoded_by(tokenizer, columns, limit, truncation="only_second", return_offsets_mapping=True)
        except Exception as error:  # tokenizers raises plain Exceptions
            raise _no_room(limit) from error

    def losses(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " b"]:
        """Compute the cross-entropy, summed over the first and the last token."""
        return nn.functional.cross_entropy(_masked(outputs, batch), labels(batch), reduction="none").sum(-1)

    def answers(self, batch: Batch) -> Float[Tensor, " b"]:
        """Return 2 for each sample: the first and the last token."""
        return torch.full((len(batch.rows),), 2.0, device=batch.rows.device)

    def naive_loss(self, model: TaskModel, batches: Sequence[Batch]) -> float:
        """Return the loss of a model that finds all tokens equally likely."""
        del model
        return math.log(max(batch.real.shape[1] for batch in batches))

    def probes(self, outputs: Tensor, batch: Batch, seed: int) -> Float[Tensor, " b"]:
        """Draw first and last token from the model's own prediction, and compute their loss: the true Fisher."""
        logits = _masked(outputs, batch)
        drawn = sampled(logits.detach().transpose(1, 2), uniforms(2, batch, seed))
        return nn.functional.cross_entropy(logits, drawn, reduction="none").sum(-1)

    def divergences(self, ours: Tensor, theirs: Tensor, batch: Batch) -> Float[Tensor, " b"]:
        """Compute the KL divergence, summed over the first and the last token."""
        return kl(_masked(ours, batch).transpose(1, 2), _masked(theirs, batch).transpose(1, 2)).sum(-1)

    def condense(self, outputs: Tensor, batch: Batch) -> Iterator[Tensor]:
        """Yield both logits of each real token."""
        for own, length in zip(outputs, batch.real.sum(-1).tolist(), strict=True):
            yield own[:length]

    def judge(self, seen: Observed, finding: str) -> Judged:
        """Pair the text of each row's likeliest span with the right answers."""
        del finding
        assert isinstance(seen.encoded, Questions), "it is what this family makes"
        assert seen.rows.labels is not None, "the spec requires a label column for this task type"
        answers = [cast("Answers", own).texts for own in seen.rows.labels]
        windows: list[list[int]] = [[] for _ in answers]
        for sample, row in enumerate(seen.encoded.owners):
            windows[row].append(sample)
        dense, pruned = (
            Replies(
                [
                    best_answer([(outputs[i], seen.encoded.spans[i]) for i in own], text[1])
                    for own, text in zip(windows, seen.rows.texts, strict=True)
                ],
                answers,
            )
            for outputs in (seen.dense, seen.pruned)
        )
        details = {
            "agreement_with_dense": sum(a == b for a, b in zip(dense.found, pruned.found, strict=True)) / len(answers),
            "exact_match": exact_match(pruned),
            "f1": word_f1(pruned),
            "cut_off": seen.encoded.cut_off,
        }
        if seen.encoded.cut_questions:
            details["cut_questions"] = seen.encoded.cut_questions
        return Judged(dense, pruned, len(answers), details)


def _questions(tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], limit: int) -> tuple[list[str], int]:
    """Return the questions of rows, cut where they leave no room for a context, and how many were."""
    most = limit - tokenizer.num_special_tokens_to_add(pair=True) - 1
    kept, cut = list(questions), 0
    for first in range(0, len(kept), _PORTION):
        portion = kept[first : first + _PORTION]
        options = {"add_special_tokens": False, "return_offsets_mapping": True}
        found = encoded_by(tokenizer, [portion], max(1, most + 1), **options)
        for at, offsets in enumerate(cast("list[list[tuple[int, int]]]", found["offset_mapping"]), start=first):
            if len(offsets) > most >= 2:
                kept[at] = kept[at][: offsets[most // 2 - 1][1]]
                cut += 1
    return kept, cut


def _no_room(limit: int) -> DatasetInvalid:
    return DatasetInvalid(
        f"a question alone fills the {limit} tokens of a sample and leaves no room for its context; raise max_length of "
        "calibration and evaluation",
        param="calibration.max_length",
    )


def _masked(outputs: Float[Tensor, "b s 2"], batch: Batch) -> Tensor:
    """Mask the logits of padding, which the softmaxes then leave out."""
    return outputs.masked_fill(~batch.real.to(outputs.device).unsqueeze(-1), torch.finfo(outputs.dtype).min)


def _spans(owners: Sequence[int | None], offsets: Sequence[tuple[int, int]], first: int) -> array[int]:
    """Return where tokens begin and end in the whole context, for a window that begins at its character ``first``."""
    found = array("l")
    for owner, (start, end) in zip(owners, offsets, strict=True):
        found.extend((first + start, first + end) if owner == 1 and end > start else (-1, -1))
    return found


def next_window(spans: array[int], context: str) -> int | None:
    """Return the character at which the next window of a context begins; None where this window reaches the context's end.

    Where there are spaces, the window begins at a word: its tokens are then the same as in the whole context.
    """
    end = max(spans)
    if not context[end:].strip():
        return None
    starts = [start for start in spans[::2] if start >= 0]
    overlapping = max(1, len(starts) - len(starts) // _OVERLAP)
    words = [start for start in starts[1 : overlapping + 1] if context[start - 1].isspace()]
    found = words[-1] if words else starts[min(overlapping, len(starts) - 1)]
    return found if found > starts[0] else end


def _locate(answers: Answers, context: str, spans: array[int]) -> tuple[int, int]:
    """Return the first and last token of the first answer that lies whole in the window; (0, 0) where none does."""
    for text, start, right in zip(answers.texts, answers.starts, answers.in_place(context), strict=True):
        if not right:
            continue
        end = start + len(text)
        inside = [
            at for at in range(len(spans) // 2) if spans[2 * at] >= 0 and spans[2 * at] < end and spans[2 * at + 1] > start
        ]
        if inside and spans[2 * inside[0]] <= start and spans[2 * inside[-1] + 1] >= end:
            return inside[0], inside[-1]
    return 0, 0


def best_answer(windows: Sequence[tuple[Float[Tensor, "s 2"], array[int]]], context: str) -> str:
    """Return the text of the likeliest span in any window of a context.

    The first token of a window stands for "no answer". The text is empty if this scores higher than the likeliest span in every
    window.

    Args:
        windows: Logits of first and last token, and where the tokens begin and end in the context (as `Questions.spans`).
        context: The whole context.
    """
    answer, score, none = "", -math.inf, math.inf
    for logits, spans in windows:
        offsets = torch.tensor(spans).view(-1, 2)
        inside = offsets[:, 0] >= 0
        none = min(none, float(logits[0].sum()))
        if not bool(inside.any()):
            continue
        start, end = (logits[:, side].masked_fill(~inside, -torch.inf) for side in (0, 1))
        order = torch.arange(len(start))
        apart = order[None, :] - order[:, None]
        joint = (start[:, None] + end[None, :]).masked_fill((apart < 0) | (apart >= _LONGEST_ANSWER), -torch.inf)
        best = int(joint.argmax())
        if float(joint.flatten()[best]) > score:
            first, last = divmod(best, len(start))
            answer, score = context[int(offsets[first, 0]) : int(offsets[last, 1])], float(joint.flatten()[best])
    return "" if none > score else answer
