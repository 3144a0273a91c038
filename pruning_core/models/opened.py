"""Models that come in other forms than a checkpoint's folder, as one that is read like any other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import Metaspace

from pruning_core.checks.gguf import gguf_facts, notes_on_gguf
from pruning_core.checks.hooks import check_hooks
from pruning_core.errors import ModelUnreadable, PruningError
from pruning_core.files.companions import TOKENIZER_NAMES, copy_companions
from pruning_core.files.gguf import GgufFacts
from pruning_core.machine.resources import raise_if_exhausted
from pruning_core.models.adapter import merge_adapter
from pruning_core.models.load import quiet_transformers, reason_of
from pruning_core.report.adapter import AdapterReport
from pruning_core.spec.prune import PruneSpec


@dataclass(frozen=True, slots=True)
class Opened:
    """A model's folder, as it is read.

    Attributes:
        folder: A checkpoint's folder.
        notes: What users should know of how it came in.
        adapter: The adapter that is in it; None where there is none.
    """

    folder: Path
    notes: tuple[str, ...] = ()
    adapter: AdapterReport | None = None


def opened(spec: PruneSpec, source: Path, aside: Callable[[str], Path]) -> Opened:
    """Convert a model that comes as a GGUF file, and merge its adapter; any other is read as it lies there.

    Args:
        spec: The request.
        source: Folder of the model.
        aside: Makes a folder of a name outside the bundle.

    Raises:
        ModelUnreadable: The model or the adapter is broken, or they don't belong to each other.
        UnsupportedArchitecture: GGUF files of its architecture are not converted here.
    """
    came = _converted(source, aside)
    if spec.adapter is None:
        return came
    folder = aside("merged")
    report = merge_adapter(came.folder, Path(spec.adapter).expanduser(), spec.task.type, folder)
    # What is left out of the base is not in the merged folder any more.
    return Opened(folder, (*came.notes, *check_hooks(came.folder), report.words), report)


def _converted(source: Path, aside: Callable[[str], Path]) -> Opened:
    """Convert a model where it comes as a GGUF file.

    Raises:
        ModelUnreadable: The file is broken, or transformers cannot make a model of it.
        UnsupportedArchitecture: Files of its architecture are not converted here.
    """
    facts = gguf_facts(source)
    if facts is None:
        return Opened(source)
    path, out = facts.path, aside("converted")
    try:
        with quiet_transformers():
            # Half precision holds all that few bits held; floats of 32 bits stay such.
            _convert(path, out, torch.float32 if facts.commonest == "F32" else torch.bfloat16)
            _write_tokenizer(facts, out)
    except PruningError:
        raise
    except Exception as error:  # of files that are not as transformers expects, it raises whatever comes
        raise_if_exhausted(error, "the GGUF file was converted")
        said = f"transformers cannot convert {path.name}: {reason_of(error, source)}"
        raise ModelUnreadable(said, param="model") from error
    copy_companions(source, out, but=TOKENIZER_NAMES)
    return Opened(out, notes_on_gguf(facts))


def _convert(path: Path, folder: Path, dtype: torch.dtype) -> None:
    """Write the model and the tokenizer of a GGUF file as a checkpoint.

    transformers refuses to save a model that it has read of GGUF: the weights go into a fresh one of the same configuration.
    """
    import transformers

    auto: Any = transformers.AutoModelForCausalLM
    read = auto.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32, local_files_only=True)
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.dtype = dtype
    with torch.device("meta"):
        fresh = type(read)(config)
    fresh.load_state_dict(read.state_dict(), assign=True)
    fresh.tie_weights()
    fresh.generation_config = read.generation_config
    fresh.to(dtype).save_pretrained(folder)


def _write_tokenizer(facts: GgufFacts, folder: Path) -> None:
    """Write the tokenizer of a GGUF file. transformers puts a space before every text, where the file says no, too."""
    import transformers

    auto: Any = transformers.AutoTokenizer
    tokenizer = auto.from_pretrained(facts.path.parent, gguf_file=facts.path.name, local_files_only=True)
    before = tokenizer.backend_tokenizer.pre_tokenizer
    if facts.puts_space is False and isinstance(before, Metaspace):
        before.prepend_scheme = "never"
    tokenizer.save_pretrained(folder)
