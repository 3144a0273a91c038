"""What users should know of a model's files before any work, and read again in its report. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pruning_core.arch.structure import structure_of, unit_groups
from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.checks.hooks import check_hooks
from pruning_core.checks.tokens import check_tokens
from pruning_core.checks.use import notes_on_use
from pruning_core.files.checkpoint import notes_on_files, read_checkpoint
from pruning_core.files.paths import is_local
from pruning_core.files.snapshots import resolve_snapshot, said_of_snapshot
from pruning_core.spec.prune import TaskSpec

_ATTENTIONS = (
    "config.json asks for output_attentions, which transformers does not save; it was left out, and whoever reads attentions "
    "gives output_attentions=True to the model's call"
)

_ONE_KEY = "the heads of a layer share one key and one value, so that they are one unit"
_ONE_NORM = "queries and keys have a norm over all heads at once, so that a head that goes would change the others"


def notes_on_model(folder: Path, task: TaskSpec) -> tuple[str, ...]:
    """Say what of a model's files is left out, read otherwise than it stands, or not looked at.

    Args:
        folder: A checkpoint that passes the checks, or the folder of the Hub's cache that holds it.
        task: The task that the model is pruned for.

    Raises:
        PruningError: As the checks.
    """
    own = resolve_snapshot(folder)
    facts = read_checkpoint(own)
    structure = structure_of(facts)
    return (
        *check_hooks(own),
        *notes_on_files(facts),
        *((_ATTENTIONS,) if facts.config.get("output_attentions") is True else ()),
        *check_tokens(task.type, own, facts.config, facts.shapes, structure.signature),
        *_notes_on_units(unit_groups(structure, facts.config)),
        *notes_on_use(task, own),
    )


def _notes_on_units(groups: Sequence[UnitGroup]) -> tuple[str, ...]:
    """Say what one block for all layers means, and why heads stay where FFNs get smaller."""
    if groups[0].times > 1:
        said = (
            f"one block runs for all {groups[0].times} layers, so that what it loses, each of them loses: a unit counts once "
            f"in parameters, and {groups[0].times} times in multiply-accumulates and time"
        )
        return (said,)
    heads = [group for group in groups if group.kind == "head"]
    if any(group.kind == "expert" for group in groups) or any(group.floor < group.size for group in heads):
        return ()
    why = _ONE_KEY if all(group.size == 1 for group in heads) else _ONE_NORM
    return (f"attention keeps all its heads, and FFNs alone get smaller: {why}",)


def notes_on_place(reference: str, revision: str | None) -> tuple[str, ...]:
    """Say which snapshot of the Hub's cache a path leads to, and that a revision has no meaning for it; nothing of ids."""
    if not is_local(reference):
        return ()
    unused = () if revision is None else ("the revision was not used: it is of ids of the Hub, and the model is a folder",)
    return (*said_of_snapshot(Path(reference).expanduser()), *unused)
