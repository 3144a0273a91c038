"""The quantised form, as vLLM's users deploy it: a checkpoint of its own in ``compressed-tensors/``.

The library's own compressors write and read the matrices. Weights are rounded to the nearest value; scales are those of the
largest weight, by the library's formula. Matrices of the blocks are quantised; what reads or makes tokens (embeddings, heads)
stays as it is. A weight is quantised as it is stored, so that nothing but one file is ever in memory.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pruning_core.arch.adapter import adapt
from pruning_core.arch.structure import find_structure, stored_name
from pruning_core.artifacts.exports.base import Exported, failed
from pruning_core.artifacts.exports.proof import LIKENESS, NotProven, likeness, off_by, prove, prove_weights
from pruning_core.artifacts.sentence import write_sentence_modules
from pruning_core.files.checkpoint import INDEX_NAME, read_checkpoint
from pruning_core.files.companions import companions_of
from pruning_core.machine.resources import raise_if_exhausted
from pruning_core.report.engines import ExportReport
from pruning_core.spec.artifacts import Quantization

FORMAT = "compressed-tensors"
INSTALL = "it is not installed where the job ran: pip install 'coppice-prune[engines]'"

# Groups of inputs that share a scale, by what kernels take: the largest that divides a matrix's inputs.
_GROUPS = (128, 64, 32)
# Kernels of GPUs take widths in such steps.
_GPU_STEP = 16
_PRESETS: Mapping[Quantization, str] = {"fp8": "FP8_DYNAMIC", "int8": "W8A8", "w4a16": "W4A16"}
_STORED: Mapping[Quantization, str] = {"fp8": "float-quantized", "int8": "int-quantized", "w4a16": "pack-quantized"}


# The entry of config.json in which the layout for serving says its widths.
OURS = "coppice"
_VLLM_ALONE = (
    "transformers does not load it: its reader of widths takes the place of the reader of scales. It is for vLLM; here its "
    "weights were read back and run, without rounding activations"
)


class NotQuantised(Exception):
    """The checkpoint has no such form; the message says why."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is quantised.

    Attributes:
        groups: Names of modules by the size of a group of inputs; 0 where a whole row is one.
        ignored: Names of the linear modules that stay as they are.
        notes: What users should know of it.
    """

    groups: Mapping[int, tuple[str, ...]]
    ignored: tuple[str, ...]
    notes: tuple[str, ...]


def export(asked: Exported) -> tuple[ExportReport, ...]:
    """Write the quantised checkpoint, read it back, and have it loaded by stock transformers."""
    kind, out = asked.options.quantization, asked.folder / FORMAT
    if importlib.util.find_spec("compressed_tensors") is None:
        return (failed(FORMAT, kind, INSTALL),)
    try:
        plan = _planned(asked.pruned.model, kind)
        _write(asked, out, plan, kind)
        ours = isinstance(json.loads((out / "config.json").read_text(encoding="utf-8")).get(OURS), dict)
        # Stock transformers reads the widths or the scales of one config.json.
        found = prove_weights(asked, _read_back(out, plan, kind)) if ours else prove(asked, "transformers", out, timed=False)
    except (NotQuantised, NotProven) as error:
        shutil.rmtree(out, ignore_errors=True)
        reason = f"transformers {error}" if isinstance(error, NotProven) else str(error)
        return (failed(FORMAT, kind, reason),)
    except Exception as error:
        shutil.rmtree(out, ignore_errors=True)
        raise_if_exhausted(error, "the quantised checkpoint was made")
        return (failed(FORMAT, kind, f"compressed-tensors cannot express the model ({type(error).__name__}: {error})"),)
    if found.mean_difference > LIKENESS:
        shutil.rmtree(out)
        return (failed(FORMAT, kind, f"transformers gives {likeness(found)}"),)
    size = sum(path.stat().st_size for path in out.glob("*.safetensors"))
    notes = (*plan.notes, off_by(found), *((_VLLM_ALONE,) if ours else ()))
    return (
        ExportReport(
            format=FORMAT, kind=kind, status="ok", path=FORMAT, bytes=size, max_difference=found.max_difference, notes=notes
        ),
    )


def _planned(model: nn.Module, kind: Quantization) -> _Plan:
    """Choose the matrices and their groups.

    Raises:
        NotQuantised: There is none.
    """
    blocks = adapt(cast("Any", model)).linears
    groups: dict[int, list[str]] = {}
    odd = narrow = 0
    for name, linear in blocks.items():
        if not isinstance(linear, nn.Linear):
            continue
        outputs, inputs = linear.weight.shape
        narrow += bool(inputs % _GPU_STEP or outputs % _GPU_STEP)
        group = 0 if kind != "w4a16" else next((size for size in _GROUPS if inputs % size == 0), None)
        if group is None:
            odd += 1
        else:
            groups.setdefault(group, []).append(name)
    if not groups:
        raise NotQuantised(
            f"no matrix of its blocks can be quantised as {kind}: "
            + ("their inputs are no multiples of 32" if odd else "they are stored input-major, which engines do not quantise")
        )
    taken = {name for names in groups.values() for name in names}
    ignored = tuple(name for name, own in model.named_modules() if isinstance(own, nn.Linear) and name not in taken)
    notes: list[str] = []
    if kind == "w4a16" and set(groups) != {_GROUPS[0]}:
        counts = ", ".join(f"{len(groups[size])} of groups of {size}" for size in sorted(groups, reverse=True))
        notes.append(f"matrices whose inputs are no multiple of 128 have smaller groups: {counts}")
    if odd:
        notes.append(f"{odd} of {len(blocks)} matrices are not quantised: their inputs are no multiple of 32")
    if narrow:
        notes.append(f"{narrow} of {len(blocks)} matrices have widths that are no multiple of 16, which GPU kernels may refuse")
    return _Plan({size: tuple(names) for size, names in groups.items()}, ignored, tuple(notes))


def _write(asked: Exported, out: Path, plan: _Plan, kind: Quantization) -> None:
    """Write weights, config and companions.

    Raises:
        NotQuantised: The config already describes a quantisation, or a matrix does not come back as it should.
    """
    folder = asked.folder
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "quantization_config" in config:
        raise NotQuantised(
            "its config.json says the widths of its layers in the place where a quantised checkpoint says its scales; "
            "take layout stock or serve"
        )
    schemes = {
        group: _scheme(kind, group, ["Linear"] if len(plan.groups) == 1 else names) for group, names in plan.groups.items()
    }
    facts = read_checkpoint(folder)
    structure = find_structure(facts.shapes)
    stored = {f"{stored_name(name, structure)}.weight": group for group, names in plan.groups.items() for name in names}
    out.mkdir()
    places: dict[str, str] = {}
    size, missing = 0, set(stored)
    for path in facts.weight_files:
        tensors: dict[str, Tensor] = {}
        for name, tensor in load_file(path).items():
            if name in stored:
                missing.discard(name)
                tensors |= dict(_quantised(name, tensor, schemes[stored[name]]))
            else:
                tensors[name] = tensor
        save_file(tensors, out / path.name, metadata={"format": "pt"})
        shutil.copymode(folder / "config.json", out / path.name)
        places |= dict.fromkeys(tensors, path.name)
        size += sum(tensor.nbytes for tensor in tensors.values())
    if missing:
        raise NotQuantised(f"{len(missing)} matrices are stored under other names, {min(missing)} for one")
    if len(facts.weight_files) > 1:
        index = {"metadata": {"total_size": size}, "weight_map": places}
        (out / INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    config["quantization_config"] = _config(kind, list(schemes.values()), plan.ignored)
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    _copy_companions(asked, out, with_code="auto_map" in config)


def _copy_companions(asked: Exported, out: Path, *, with_code: bool) -> None:
    folder = asked.folder
    for name in [*companions_of(folder), *([path.name for path in folder.glob("modeling_*.py")] if with_code else [])]:
        (out / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(folder / name, out / name)
    embedder = asked.dense.embedder
    if embedder is not None:
        write_sentence_modules(folder, out, embedder.recipe, hidden=asked.pruned.model.config.hidden_size)


def _scheme(kind: Quantization, group: int, targets: Sequence[str]) -> Any:
    from compressed_tensors.quantization import preset_name_to_scheme

    scheme = preset_name_to_scheme(_PRESETS[kind], list(targets))
    scheme.format = cast("Any", _STORED[kind])
    if group:
        assert scheme.weights is not None, "the preset quantises weights"
        scheme.weights.group_size = group
    return scheme


def _config(kind: Quantization, schemes: Sequence[Any], ignored: Sequence[str]) -> dict[str, Any]:
    """Return the words of the config, those that stand at their defaults left out: older readers do not know them all."""
    from compressed_tensors.quantization import QuantizationConfig, QuantizationStatus

    whole = QuantizationConfig(
        config_groups={f"group_{number}": scheme for number, scheme in enumerate(schemes)},
        format=_STORED[kind],
        quantization_status=QuantizationStatus.COMPRESSED,
        ignore=list(ignored),
    )
    return cast("dict[str, Any]", json.loads(whole.model_dump_json(exclude_none=True)))


def _quantised(name: str, weight: Tensor, scheme: Any) -> Iterator[tuple[str, Tensor]]:
    """Quantise a matrix, and yield its tensors by stored name.

    Raises:
        NotQuantised: What the library reads back is further from the matrix than rounding explains.
    """
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization.utils import calculate_qparams

    args = scheme.weights
    rows = weight.float() if args.group_size in (None, -1) else weight.float().unflatten(1, (-1, args.group_size))
    scale, zero = calculate_qparams(rows.amin(-1), rows.amax(-1), args)
    scale = scale.reshape(weight.shape[0], -1).to(weight.dtype)
    codec = cast("Any", BaseCompressor.get_value_from_registry(scheme.format))
    # It divides in the type of the scale.
    packed = codec.compress(
        {"weight": weight.float(), "weight_scale": scale.float(), "weight_zero_point": zero.reshape_as(scale)}, scheme
    )
    back = codec.decompress(dict(packed), scheme)["weight"]
    # One step of the scale is twice what rounding to nearest needs: the scale itself is rounded to the stored type.
    step = scale.float().repeat_interleave(weight.shape[1] // scale.shape[1], dim=1)
    bound = step if args.type == "int" else weight.float().abs() * 2**-3.5 + step * 2**-8
    off = (back.float() - weight.float()).abs() > bound
    if bool(off.any()):
        raise NotQuantised(f"{int(off.sum())} values of {name} come back further off than rounding explains")
    base = name.removesuffix("weight")
    packed["weight_scale"] = scale
    yield from ((f"{base}{own}", tensor.contiguous()) for own, tensor in packed.items())


def _read_back(out: Path, plan: _Plan, kind: Quantization) -> dict[str, Tensor]:
    """Return the weights of a written folder by module path, as the library reads them."""
    from compressed_tensors.compressors import BaseCompressor

    tensors: dict[str, Tensor] = {}
    for path in sorted(out.glob("*.safetensors")):
        tensors |= load_file(path)
    codec = cast("Any", BaseCompressor.get_value_from_registry(_STORED[kind]))
    found: dict[str, Tensor] = {}
    for group, names in plan.groups.items():
        scheme = _scheme(kind, group, names)
        for name in names:
            own = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.weight")}
            found[name] = codec.decompress(own, scheme)["weight"]
    return found
