"""The check of a model that comes as a GGUF file. Torch-free: what its tensors are for is seen once it is converted."""

from __future__ import annotations

from pathlib import Path

from pruning_core.errors import ModelUnreadable, UnsupportedArchitecture
from pruning_core.files.gguf import GgufFacts, gguf_in, read_gguf
from pruning_core.spec.prune import PruneSpec

TASK = "text-generation"
# Architectures of llama.cpp whose files transformers turns into models that are pruned here.
ARCHITECTURES = frozenset({"llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "starcoder2", "gpt2", "stablelm"})


def gguf_facts(folder: Path) -> GgufFacts | None:
    """Return the facts of a folder's GGUF file; None where the model is no such file.

    Raises:
        ModelUnreadable: The file is broken, or there are several.
        UnsupportedArchitecture: Files of its architecture are not converted here.
    """
    path = gguf_in(folder)
    if path is None:
        return None
    facts = read_gguf(path)
    if facts.architecture not in ARCHITECTURES:
        raise UnsupportedArchitecture(
            f"GGUF files of the architecture {facts.architecture!r} are not converted here; known are "
            f"{', '.join(sorted(ARCHITECTURES))}. Give the checkpoint as it was before, with config.json and model.safetensors",
            param="model",
        )
    return facts


def check_gguf(spec: PruneSpec, folder: Path) -> tuple[str, ...] | None:
    """Refuse a GGUF file that cannot do what a spec asks.

    Returns:
        What users should know of it; None where the model is no such file.

    Raises:
        ModelUnreadable: The file is broken, or the task needs a head, which such files don't have.
        UnsupportedArchitecture: Files of its architecture are not converted here.
    """
    facts = gguf_facts(folder)
    if facts is None:
        return None
    if spec.task.type != TASK:
        raise ModelUnreadable(
            f"a GGUF file holds a model of {TASK}, and the task is {spec.task.type}: give a checkpoint with a head for it",
            param="model",
        )
    return notes_on_gguf(facts)


def notes_on_gguf(facts: GgufFacts) -> tuple[str, ...]:
    """Say what a model is that was quantised before."""
    if not facts.is_quantised:
        return ()
    said = (
        f"the model comes from a GGUF file ({facts.types}), whose weights were turned back into floats: what the report calls "
        "dense is that model, with what quantisation had cost it already"
    )
    return (said,)
