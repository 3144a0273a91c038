"""Checks of a request before any work, on local files alone. Torch-free.

The front end uses them to refuse a hopeless job at submit, and the pipeline uses the same ones, so that both say the same. A
checkpoint is judged by its ``config.json`` and the headers of its safetensors files; no weight is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pruning_core.arch.structure import structure_of, unit_groups
from pruning_core.checks.adapter import check_adapter, read_adapter
from pruning_core.checks.config import check_config, with_defaults
from pruning_core.checks.data import check_data
from pruning_core.checks.embedder import check_embedder
from pruning_core.checks.findings import Checked, Findings
from pruning_core.checks.further import check_further
from pruning_core.checks.gguf import check_gguf, gguf_facts
from pruning_core.checks.heads import check_head_weights, check_type
from pruning_core.checks.hooks import check_hooks
from pruning_core.checks.image_processor import check_image_processor
from pruning_core.checks.ledger import check_ledger_inputs
from pruning_core.checks.method import check_method, check_request
from pruning_core.checks.model import check_weights
from pruning_core.checks.reader import check_longest, check_padding, check_reader, check_writing
from pruning_core.checks.task import check_lengths, check_model_class, check_problem_type, positions_of
from pruning_core.checks.tensors import check_tensors
from pruning_core.checks.tokens import check_tokens
from pruning_core.checks.vocabulary import check_cuttable, check_vocabulary_inputs
from pruning_core.data.head import Head, check_head
from pruning_core.errors import together
from pruning_core.files.checkpoint import ADAPTER_CONFIG, classes_of, names_of, read_checkpoint
from pruning_core.files.companions import TOKENIZER_NAMES
from pruning_core.files.paths import is_local
from pruning_core.files.snapshots import resolve_snapshot
from pruning_core.spec.presets import words_of
from pruning_core.spec.prune import PruneSpec, TaskSpec
from pruning_core.spec.tasks import KINDS

_CONVERTED = "what the model's tensors are for, which is known once the job has {}"


def check_local_inputs(spec: PruneSpec) -> Checked:
    """Refuse a request that cannot work, as far as local files tell. A model or data set with a Hub id is not checked.

    Args:
        spec: The request.

    Returns:
        The request with the columns that were guessed, and what was found and not looked at.

    Raises:
        ModelUnreadable: The checkpoint is missing or corrupt, does not fit its configuration, or is pickle.
        UnsupportedArchitecture: The model has no known block structure, or none for the method, the layout or the task.
        DatasetInvalid: A split or a column is missing, or the labels do not fit the model.
        TargetUnreachable: The target is below what any mask can reach.
    """
    check_request(spec)
    heads: list[Head] = []
    unseen: list[Unseen] = []
    found: list[tuple[TaskSpec, Findings]] = []
    further: list[tuple[PruneSpec, Findings]] = []
    of_ledger: list[Findings] = []

    def model() -> None:
        match _look_at_model(spec):
            case Unseen() as own:
                unseen.append(own)
            case head:
                heads.append(head)

    def data() -> None:
        found.append(check_data(spec, heads[0] if heads else None))

    def sets() -> None:
        task = found[0][0] if found else spec.task  # with the columns that were guessed
        further.append(check_further(spec.but(task=task), heads[0] if heads else None))

    def ledger() -> None:
        of_ledger.append(check_ledger_inputs(spec))

    together((model, data, sets, ledger, lambda: check_vocabulary_inputs(spec)))
    ((task, findings),), ((spec, of_sets),) = found, further
    findings = findings.and_of(of_sets).and_of(of_ledger[0])
    findings = findings.but(notes=(*_of_preset(spec), *findings.notes))
    for own in unseen:
        findings = findings.but(notes=(*own.notes, *findings.notes), not_looked_at=(own.what, *findings.not_looked_at))
    return Checked(spec.but(task=task), findings)


@dataclass(frozen=True, slots=True)
class Unseen:
    """A model that cannot be looked at before the job has it as a checkpoint.

    Attributes:
        what: What was not looked at, and why.
        notes: What is known of it all the same.
    """

    what: str
    notes: tuple[str, ...] = ()


def _look_at_model(spec: PruneSpec) -> Head | Unseen:
    """Check a model and its adapter as far as their files tell."""
    adapter = None if spec.adapter is None else read_adapter(Path(spec.adapter).expanduser())
    if not is_local(spec.model):
        return Unseen("the model, which is on the Hub")
    folder = model_at(spec.model)
    notes = check_gguf(spec, folder)
    if notes is not None:
        return Unseen(_CONVERTED.format("converted the GGUF file"), notes)
    if adapter is None:
        return check_model(spec, folder)
    check_checkpoint(folder)
    check_adapter(adapter, read_checkpoint(folder).shapes)
    return Unseen(_CONVERTED.format("merged the adapter"))


def _of_preset(spec: PruneSpec) -> tuple[str, ...]:
    """Say what the settings are where they are a preset's."""
    name = spec.preset
    return () if name is None else (f"the settings are those of preset {name}: {words_of(spec.method.presets[name])}",)


def model_at(reference: str) -> Path:
    """Return the folder of a model that is given by a path: of a folder of the Hub's cache, the snapshot in it."""
    return resolve_snapshot(Path(reference).expanduser())


def check_upload(folder: Path) -> None:
    """Refuse a folder that is neither a checkpoint nor a LoRA adapter, whatever will be asked of it.

    Raises:
        ModelUnreadable: It is neither, or is broken.
        UnsupportedArchitecture: It is a model of no known block structure.
    """
    if (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file():
        read_adapter(folder)
    else:
        check_checkpoint(folder)


def check_checkpoint(folder: Path) -> None:
    """Refuse a folder without a readable checkpoint of a known block structure, whatever will be asked of it.

    Raises:
        ModelUnreadable: The checkpoint is missing or corrupt, or is pickle, or reaches for code or files outside it.
        UnsupportedArchitecture: The model has no known block structure.
    """
    if gguf_facts(folder) is not None:
        return
    facts = read_checkpoint(folder)
    check_hooks(folder)
    structure = structure_of(facts)
    check_config(facts.config)
    stated = with_defaults(facts.config)
    check_weights(stated, facts.shapes, structure, unit_groups(structure, stated))
    if any((folder / name).is_file() for name in TOKENIZER_NAMES):
        check_tokens(None, folder, facts.config, facts.shapes, structure.signature)


def check_model(spec: PruneSpec, folder: Path) -> Head:
    """Refuse a checkpoint that cannot do what a spec asks of it, by its configuration and the headers of its files.

    Args:
        spec: The request.
        folder: Folder of the checkpoint.

    Returns:
        The classes of its task head.

    Raises:
        ModelUnreadable: The checkpoint is missing or corrupt, does not fit its configuration, is pickle, or reaches for code or
            files outside it.
        UnsupportedArchitecture: The model has no known block structure, or none for the method, the layout or the task.
        DatasetInvalid: The head does not fit the task.
        TargetUnreachable: The target is below what any mask can reach.
    """
    facts = read_checkpoint(folder)
    check_hooks(folder)
    structure = structure_of(facts)
    check_config(facts.config)
    stated = with_defaults(facts.config)
    groups = unit_groups(structure, stated)
    check_weights(stated, facts.shapes, structure, groups)
    check_cuttable(spec, folder)
    check_method(spec, facts.config, facts.shapes, structure, groups)
    check_type(spec.task.type, facts.config)
    check_model_class(spec.task, facts.config)
    check_problem_type(spec.task, facts.config)
    head = Head(classes_of(facts), names_of(facts))
    check_head(spec.task, head.classes, head.names)
    check_head_weights(spec.task.type, facts.config, facts.shapes)
    check_tensors(spec.task.type, facts.config, facts.shapes)
    check_lengths(spec, positions_of(facts.config))
    check_reader(spec.task, folder)
    check_tokens(spec.task.type, folder, facts.config, facts.shapes, structure.signature)
    check_embedder(spec.task.type, folder, groups[0].hidden)
    check_longest(spec.task, folder)
    check_writing(spec.task, folder)
    if KINDS[spec.task.type].reads == "image":
        check_image_processor(folder, facts.config)
    check_padding(spec.task, folder, facts.config, structure.signature)
    return head
