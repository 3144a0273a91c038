"""The bundle: checkpoint, tokenizer, report, model card and manifest, written so that it loads anywhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Container, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from pruning_core.arch.adapter import ModelAdapter, adapt
from pruning_core.arch.linear import inputs_of, is_linear, outputs_of
from pruning_core.arch.paging import each_tensor, first_names
from pruning_core.artifacts import stock
from pruning_core.artifacts.card import model_card
from pruning_core.artifacts.compressed import COMPRESSED_PATH, Hint, write_compressed
from pruning_core.artifacts.config_forms import write_both_forms
from pruning_core.artifacts.configuration import REMOTE_CODE_NAME, class_name, loader_of, remote_code, write_configuration
from pruning_core.artifacts.sentence import write_sentence_modules
from pruning_core.checks.hooks import cleaned_json, is_hooked
from pruning_core.files.companions import companions_of
from pruning_core.files.digests import sha256_of
from pruning_core.files.tensors import write_tensors
from pruning_core.machine.finite import require_finite
from pruning_core.models.load import quiet_transformers
from pruning_core.models.plain import write_cleaned
from pruning_core.plugin import per_layer
from pruning_core.report.report import Report
from pruning_core.spec.prune import AUTO_CLASSES, ArtifactSpec, PruneSpec
from pruning_core.tasks.base import TaskModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from pruning_core.arch.linear import AnyLinear


def write_checkpoint(
    folder: Path, source: TaskModel, dense: ModelAdapter, student: PreTrainedModel, options: ArtifactSpec
) -> None:
    """Write weights, config, loading code and tokenizer files of a pruned model.

    Args:
        folder: Where to write; must exist.
        source: The dense model, for its tokenizer files and its stored data type.
        dense: The dense model's adapter, with whose widths the student's are compared.
        student: The pruned model; its config is completed in place.
        options: Data type of the written weights, layout, and size of a file.
    """
    dtype = source.stored_dtype if options.dtype == "auto" else options.dtype
    config = student.config
    if options.layout == "stock":
        left = adapt(student).groups
        if left != dense.groups:
            stock.describe_(config, left)
    else:
        _describe_per_layer_(dense, student)
    weights = _weights_in(getattr(torch, dtype), student, source.pages)
    # A model that was loaded from a bundle of ours has our quantizer, which would make transformers write other weights.
    vars(student).pop("hf_quantizer", None)
    with quiet_transformers():
        student.save_pretrained(folder, state_dict=weights, max_shard_size=f"{options.shard_mb}MB")
    # The config's type decides how from_pretrained loads; save_pretrained puts that of the live model there.
    config.dtype = dtype
    config.save_pretrained(folder)
    write_both_forms(folder / "config.json", source.source / "config.json")
    if options.layout != "stock":
        name = class_name(student)
        write_configuration(folder, options.layout, adapt(student).groups, loader_of(AUTO_CLASSES[source.task_type], name))
        (folder / f"{REMOTE_CODE_NAME}.py").write_text(remote_code(student, name), encoding="utf-8")
    for path in folder.glob("*.safetensors"):  # safetensors writes for the owner alone; the umask is to decide, as elsewhere
        shutil.copymode(folder / "config.json", path)
    _copy_companions(source.source, folder)
    if source.embedder is not None:
        write_sentence_modules(source.source, folder, source.embedder.recipe, hidden=dense.groups[0].hidden)


def _weights_in(dtype: torch.dtype, student: PreTrainedModel, pages: Path | None) -> dict[str, Tensor]:
    """Return the state dict in the stored data type; for a paged model its tensors lie in a file.

    Tied weights are one tensor under several names: `save_pretrained` recognises shared memory and stores it once.
    """
    first = first_names(student)
    own = ((name, tensor) for name, tensor in each_tensor(student) if first[name] == name)
    buffers = {name for name, _ in student.named_buffers()}  # which may mask by infinity
    stored = ((name, tensor.to(dtype) if name in buffers else _stored(name, tensor, dtype)) for name, tensor in own)
    written = stored if pages is None else ((name, tensor.mapped()) for name, tensor in write_tensors(stored, pages).items())
    once = dict(written)
    return {name: once[other] for name, other in first.items()}


def _stored(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert a parameter to the type that it is written in.

    Raises:
        NotFinite: A value is no finite number, or none in that type.
    """
    values = tensor.to(dtype)
    type_name = str(dtype).removeprefix("torch.")
    require_finite(values, f"the pruned model's tensor {name} in {type_name}", param="artifacts.dtype")
    return _without_signed_zeros(values)


def _without_signed_zeros(values: Tensor) -> Tensor:
    """Replace negative zeros, which products may leave, by plain ones: compared by their bits, they would not be zeros.

    Returns:
        The same tensor if there are none, so that a float32 model is written without a copy.
    """
    return values + 0 if bool((values.signbit() & (values == 0)).any()) else values


def write_compressed_form(
    folder: Path, source: TaskModel, student: PreTrainedModel, hints: Mapping[str, Hint]
) -> dict[str, int]:
    """Write the compressed form of a written checkpoint. It is a checkpoint too, with its own loader and tokenizer.

    Args:
        folder: The checkpoint's folder.
        source: The dense model.
        student: The pruned model.
        hints: The structure of the zeros of each prunable matrix, by module path.

    Returns:
        The number of matrices by form.

    Raises:
        NothingToCompress: No matrix was compressed.
    """
    name = class_name(student)
    counts = write_compressed(folder, hints, loader_of(AUTO_CLASSES[source.task_type], name))
    out = folder / COMPRESSED_PATH
    (out / f"{REMOTE_CODE_NAME}.py").write_text(remote_code(student, name), encoding="utf-8")
    _copy_companions(folder, out)
    if source.embedder is not None:
        write_sentence_modules(folder, out, source.embedder.recipe, hidden=student.config.hidden_size)
    return counts


def _copy_companions(source: Path, folder: Path) -> None:
    """Copy the files that stay as they are, but for entries that would have code of the source's loaded with the bundle.

    Raises:
        ModelUnreadable: Such an entry cannot be left out.
    """
    for name in companions_of(source):
        path = source / name
        (folder / name).parent.mkdir(exist_ok=True)
        cleaned = cleaned_json(source, name) if is_hooked(name) else None
        if cleaned is not None and cleaned.left_out:
            write_cleaned(folder / name, cleaned)
        else:
            shutil.copyfile(path, folder / name)


def _describe_per_layer_(dense: ModelAdapter, student: PreTrainedModel) -> None:
    """Set the shapes of what differs in the student's config, in place."""
    widths, original = _widths(student), _widths(dense.model)
    linears = {name: shape for name, shape in widths.items() if shape != original[name]} | _inherited(dense.model, widths)
    adapter = adapt(student)
    student.config.quantization_config = per_layer.CoppiceConfig(
        linears, _counts(student, linears), absent=adapter.absent, experts=_experts(adapter)
    )


def _experts(adapter: ModelAdapter) -> dict[str, int]:
    """Return the number of experts of each mixture that has another one than the config says, by module path."""
    paths, said = adapter.paths, stock.experts_said(adapter.model.config)
    mixtures = [own for own in adapter.sublayers if own.signature.mixture is not None]
    return {paths[own.module]: own.units for own in mixtures if own.units != said}


def _widths(model: PreTrainedModel) -> dict[str, list[int]]:
    linears = {name: cast("AnyLinear", module) for name, module in model.named_modules() if is_linear(module)}
    return {name: [outputs_of(linear), inputs_of(linear)] for name, linear in linears.items()}


def _counts(student: PreTrainedModel, linears: Container[str]) -> dict[str, dict[str, int | list[int]]]:
    """Return the head counts of the attention modules in narrower layers, by module path."""
    adapter = adapt(student)
    paths = adapter.paths
    # A position bias is handed from layer to layer: if one layer has fewer heads, all must know which part of it is theirs.
    narrower = [own for own in adapter.sublayers if paths[own.output] in linears or own.signature.positions]
    return {paths[own.module]: own.counts for own in narrower if own.counts}


def _inherited(dense: PreTrainedModel, widths: dict[str, list[int]]) -> dict[str, list[int]]:
    """Return the linears that were already narrower than the config's widths, if the source is itself a bundle of ours."""
    earlier = getattr(dense.config, "quantization_config", None)
    ours = earlier.linears if isinstance(earlier, per_layer.CoppiceConfig) else {}
    return {name: widths[name] for name in ours if name in widths}


def write_reports(folder: Path, spec: PruneSpec, report: Report, *, licence: str | None) -> None:
    """Write ``report.json``, the report page and the model card of one checkpoint."""
    from pruning_core.artifacts.page import render_page  # imports matplotlib, which only writing a bundle needs

    (folder / "report.json").write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(render_page(spec, report), encoding="utf-8")
    (folder / "README.md").write_text(model_card(spec, report, licence=licence), encoding="utf-8")


def write_manifest(folder: Path) -> None:
    """Write the sizes and hashes of all files of the bundle. It must be the last file to be written."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = {path.relative_to(folder).as_posix(): {"sha256": sha256_of(path), "size": path.stat().st_size} for path in files}
    text = json.dumps({"version": 1, "files": manifest}, indent=2, sort_keys=True)
    (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")
