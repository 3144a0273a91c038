"""Warnings about a data set: what was guessed, rows left out, misplaced answers, texts that the tokenizer does not know."""

from __future__ import annotations

from typing import cast

import torch

from pruning_core.data.notes import notes_of
from pruning_core.data.rows import Rows
from pruning_core.errors import DatasetInvalid
from pruning_core.evidence.calibration import TokenSet
from pruning_core.spec.prune import TaskSpec
from pruning_core.spec.tasks import KINDS
from pruning_core.tasks.base import TaskModel

# Below this share, unknown tokens are the rare names and signs that every text has.
_MANY_UNKNOWN = 0.1


def data_warnings(task: TaskSpec, model: TaskModel, train: Rows, validation: Rows, calibration: TokenSet) -> list[str]:
    """Return warnings for whoever prepared the data.

    Raises:
        DatasetInvalid: The tokenizer makes no tokens of the texts.
    """
    said = [notes_of(task, rows, name) for name, rows in (("training", train), ("validation", validation))]
    found = list(dict.fromkeys(note for notes in said for note in notes))
    share = unknown_share(model, calibration)
    if share >= _MANY_UNKNOWN:
        found.append(
            f"{share:.0%} of the calibration tokens are unknown to the tokenizer; the texts may be in another language or "
            "script than the model's"
        )
    return found


def unknown_share(model: TaskModel, calibration: TokenSet) -> float:
    """Compute the share of unknown tokens among the texts' own tokens; 0 for tokenizers that know every byte.

    Raises:
        DatasetInvalid: There are only special tokens.
    """
    if KINDS[model.task_type].reads == "image":
        return 0.0
    tokenizer = model.tokenizer
    special = [getattr(tokenizer, f"{name}_token_id") for name in ("pad", "cls", "sep", "bos", "eos")]
    known = torch.tensor([token for token in special if token is not None], dtype=torch.long)
    unknown = cast("int | None", tokenizer.unk_token_id)
    own = lost = 0
    for batch in calibration.batches:
        tokens = batch.inputs["input_ids"][batch.real]
        tokens = tokens[~torch.isin(tokens, known)]
        own += len(tokens)
        lost += 0 if unknown is None else int(tokens.eq(unknown).sum())
    if not own:
        raise DatasetInvalid(
            "the tokenizer makes no token of the texts; they are empty, or in a script that it does not know",
            param="task.columns.text",
        )
    return lost / own
