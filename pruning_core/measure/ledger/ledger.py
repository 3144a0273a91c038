"""The ledger of a run: its parts, the dense model's side of each, and the report of each checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pruning_core.checks.ledger import check_harness_installed
from pruning_core.data.ledger_tasks import read_tasks
from pruning_core.data.ledger_texts import LEAST_BLOCKS, note_on_pieces, read_texts
from pruning_core.data.rows import Rows
from pruning_core.errors import NotFinite
from pruning_core.measure.certainty import Comparison
from pruning_core.measure.ledger import made
from pruning_core.measure.ledger.base import Part, Tell
from pruning_core.measure.ledger.blocks import ClozePart, TextPart, blocks_of
from pruning_core.measure.ledger.pieces import PiecesPart, halves_of
from pruning_core.measure.ledger.rows import Subject, verdict_on_task
from pruning_core.measure.ledger.spelling import spelled_out
from pruning_core.measure.ledger.writing import WritingPart
from pruning_core.report.ledger import LedgerReport, LedgerRow, ledger_line
from pruning_core.spec.ledger import DECODERS, LEDGER, LedgerSpec
from pruning_core.spec.prune import PruneSpec
from pruning_core.tasks.base import TaskModel

HELD_OUT = "the held-out text"
# Letters of the validation rows that cloze items are made of.
_LETTERS = 2**18


class Ledger:
    """Judges the checkpoints of a run by their ledger. The dense model is observed only once in each precision."""

    def __init__(self, spec: PruneSpec, ledger: LedgerSpec, dense: TaskModel, validation: Rows) -> None:
        """Make the parts.

        Args:
            spec: The request.
            ledger: Its ledger.
            dense: The dense model.
            validation: The validation rows, of which cloze items are made.

        Raises:
            DatasetInvalid: A text or a task that the user names cannot be read, or lm-eval is not installed.
        """
        self._spec, self._dense = spec, dense
        self._parts: list[Part] = []
        self._lacking: list[LedgerRow] = []
        self._warnings: list[str] = []
        self._observed: dict[torch.dtype, list[Any]] = {}  # by the precision that the model computed in
        named = {name: read_texts(place, f"{LEDGER}.texts.{name}") for name, place in ledger.texts.items()}
        for name, texts in named.items():
            said = spelled_out(dense.tokenizer, texts)
            if said is not None:
                self._warnings.append(f"ledger, {name}: {said}")
        if spec.task.type in DECODERS:
            self._add_decoder_parts(ledger, named, validation)
        else:
            self._add_embedder_parts(ledger, named)

    @classmethod
    def asked_for(cls, spec: PruneSpec, dense: TaskModel, validation: Rows) -> Ledger | None:
        """Make the ledger that a request asks for; None where it asks for none. Raises as the constructor."""
        asked = spec.evaluation.ledger
        return None if asked is None else cls(spec, asked, dense, validation)

    @property
    def steps(self) -> int:
        """Number of steps of the next checkpoint."""
        return sum(part.steps for part in self._parts) * (1 if self._observed else 2)

    def judge(self, pruned: TaskModel, found: Comparison, on_step: Tell) -> LedgerReport:
        """Judge a checkpoint.

        Args:
            pruned: The checkpoint.
            found: Its quality on its task.
            on_step: Called with the number of finished steps.
        """
        done = 0

        def told(part: Part, model: TaskModel) -> Any:
            nonlocal done
            before = done
            try:
                return part.observe(model, lambda step: on_step(before + step))
            except NotFinite as error:
                return error
            finally:
                done += part.steps

        dtype = self._dense.model.dtype
        if dtype not in self._observed:
            self._observed[dtype] = [told(part, self._dense) for part in self._parts]
        rows: list[LedgerRow] = []
        for part, dense in zip(self._parts, self._observed[dtype], strict=True):
            if isinstance(dense, NotFinite):
                rows += part.lacking("the dense model's outputs are not finite here", lost=False)
                continue
            ours = told(part, pruned)
            if isinstance(ours, NotFinite):
                rows += part.lacking("the pruned model's outputs are not finite here", lost=True)
            else:
                rows += part.rows(dense, ours, self._spec.seed)
        rows += self._lacking
        line = ledger_line(verdict_on_task(found), rows)
        computed = str(dtype).removeprefix("torch.")
        return LedgerReport(line=line, rows=tuple(rows), warnings=tuple(self._warnings), dtype=computed)

    def _add_decoder_parts(self, ledger: LedgerSpec, named: dict[str, list[str]], validation: Rows) -> None:
        seed, dense, task = self._spec.seed, self._dense, self._spec.task
        own = {
            "docstrings": made.docstrings(),
            "source code": made.source_code(),
            "arithmetic": made.arithmetic(seed),
            "licence text": made.licence(),
        }
        blocks = {name: self._blocks(name, texts, ledger.items) for name, texts in {**own, **named}.items()}
        self._parts += [TextPart.of(dense, task, name, some) for name, some in blocks.items() if some]
        held_out = blocks_of(dense, _first(validation), ledger.items)
        for name, some in {HELD_OUT: held_out, **{name: blocks[name] for name in named}}.items():
            cloze = ClozePart.of(dense, task, name, some, seed)
            if cloze is None:
                said = "there are fewer than four different blocks to take continuations from"
                self._lacking.append(Subject(name, "cloze", "item").lacking(said))
            else:
                self._parts.append(cloze)
        self._add_writing()
        if ledger.lm_eval is not None:
            check_harness_installed()
            from pruning_core.measure.ledger.harness import HarnessPart

            self._parts += [HarnessPart.of(dense, task, own, ledger.items) for own in read_tasks(ledger.lm_eval)]

    def _add_writing(self) -> None:
        writing = Subject("writing to an end", "endings", "continuation")
        if self._dense.pages is not None:
            self._lacking.append(writing.lacking("the model is larger than the memory of its device: nothing is written"))
            return
        part = WritingPart.of(self._dense, made.docstrings())
        if part is None:
            self._lacking.append(writing.lacking("the model's positions are too few for a prompt and a continuation"))
        else:
            self._parts.append(part)

    def _blocks(self, name: str, texts: Sequence[str], most: int) -> list[Any]:
        blocks = blocks_of(self._dense, texts, most) if texts else []
        if not blocks:
            said = "Python's installation here does not have it" if not texts else "the text has no whole block of tokens"
            self._lacking.append(Subject(name, "perplexity", "block").lacking(said))
        elif len(blocks) < LEAST_BLOCKS:
            self._warnings.append(
                f"ledger, {name}: {len(blocks)} blocks, where an interval needs {LEAST_BLOCKS}; give more text"
            )
        return blocks

    def _add_embedder_parts(self, ledger: LedgerSpec, named: dict[str, list[str]]) -> None:
        own = {"docstrings": made.docstrings(), "source code": made.source_code(), "licence text": made.licence()}
        for name, texts in {**own, **named}.items():
            halves = halves_of(texts, ledger.items)
            if len(halves) < 2:
                said = "Python's installation here does not have it" if not texts else "the text has fewer than two pieces"
                self._lacking.append(Subject(name, "retrieval", "piece").lacking(said))
                continue
            if (said := note_on_pieces(name, len(halves))) is not None:
                self._warnings.append(said)
            limit = self._spec.evaluation.max_length
            self._parts.append(PiecesPart.of(self._dense, self._spec.task, name, halves, limit))


def _first(rows: Rows) -> list[str]:
    """Return the texts of the first rows, up to a number of letters."""
    found: list[str] = []
    left = _LETTERS
    for texts in rows.texts:
        found += [text[:left] for text in texts]
        left -= sum(map(len, texts))
        if left <= 0:
            break
    return found
