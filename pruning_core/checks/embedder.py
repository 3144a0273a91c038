"""Checks that a model's embeddings can be computed as its users compute them, and what is to be said of them. Torch-free."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from pruning_core.checks.module_settings import shown
from pruning_core.checks.recipe import (
    MODULES,
    SETTINGS,
    DenseStep,
    NormStep,
    PoolingStep,
    UnitStep,
    read_recipe,
    refuse,
)
from pruning_core.files.safetensors_header import HeaderRefused, read_header
from pruning_core.spec.tasks import KINDS, TaskType


def is_embedding(task_type: TaskType) -> bool:
    """Return whether a task is judged by embeddings of texts."""
    return KINDS[task_type].loads_as == "AutoModel"


def check_embedder(task_type: TaskType, folder: Path, hidden: int) -> None:
    """Refuse a model whose embeddings cannot be computed as sentence-transformers computes them.

    Args:
        task_type: The task; only those that are judged by embeddings are checked.
        folder: Folder of the checkpoint.
        hidden: Width of a token's state.

    Raises:
        ModelUnreadable: A module is not known here, does not fit the one before it, or a file is broken or pickle.
    """
    if not is_embedding(task_type):
        return
    width = hidden
    for step in read_recipe(folder).steps:
        match step:
            case PoolingStep():
                if step.width not in (None, hidden):
                    refuse(f"{step.folder}/config.json", f"says {step.width} values a token, and the model has {hidden}")
                width = hidden * len(step.modes)
            case DenseStep(width_in=wanted) | NormStep(width=wanted):
                if wanted != width:
                    refuse(f"{step.folder}/config.json", f"takes {wanted} values, and the module before it gives {width}")
                _check_stored(folder, step)
                width = step.width_out if isinstance(step, DenseStep) else width
            case UnitStep():
                pass


def notes_on_embeddings(task_type: TaskType, folder: Path) -> tuple[str, ...]:
    """Say how the texts of a task become embeddings, as far as a user may not expect it."""
    if not is_embedding(task_type):
        return ()
    recipe = read_recipe(folder)
    found: list[str] = []
    if not recipe.own:
        modes = " and ".join(chain.from_iterable(step.modes for step in recipe.steps if isinstance(step, PoolingStep)))
        found.append(
            f"the model has no sentence-transformers files ({MODULES}): embeddings are the {modes} of the token states, scaled "
            "to unit length, and the bundle's files say so"
        )
    if recipe.prompt:
        found.append(
            f"every text is embedded behind the model's default prompt {shown(recipe.prompt_name)} ({shown(recipe.prompt)}), "
            "as sentence-transformers' encode does"
        )
    elif recipe.other_prompts:
        names = ", ".join(map(shown, recipe.other_prompts[:8]))
        found.append(
            f"the model has prompts ({names}), none of them by default: texts are embedded without one; if you use one, put it "
            "in front of your texts"
        )
    if recipe.similarity != "cosine":
        means = (
            "so are the pairs of this job" if KINDS[task_type].labels else "the cosine of this job does not see their lengths"
        )
        found.append(f"the model's embeddings are compared by {recipe.similarity} ({SETTINGS}); {means}")
    return tuple(found)


def _check_stored(folder: Path, step: DenseStep | NormStep) -> None:
    """Check that a module's weights are there, as safetensors and in its sizes."""
    path = folder / step.folder / "model.safetensors"
    name = f"{step.folder}/model.safetensors"
    if not path.is_file():
        pickled = (folder / step.folder / "pytorch_model.bin").is_file()
        why = "it has them as pickle (pytorch_model.bin), which is never read here" if pickled else "it is missing"
        refuse(name, f"must hold the module's weights, and {why}; save the model again with sentence-transformers")
    try:
        stored = {tensor.name: tensor.shape for tensor in read_header(path)}
    except HeaderRefused as error:
        refuse(name, str(error))
    except OSError:
        refuse(name, "cannot be read")
    if stored != stored_shapes(step):
        wanted = ", ".join(f"{key} {list(shape)}" for key, shape in stored_shapes(step).items())
        refuse(name, f"does not hold what its config.json says: {wanted}")


def stored_shapes(step: DenseStep | NormStep) -> dict[str, tuple[int, ...]]:
    """Return the shape of each stored tensor of a module."""
    if isinstance(step, NormStep):
        return {"norm.weight": (step.width,), "norm.bias": (step.width,)}
    matrix = (step.width_out, step.width_in)
    shapes: dict[str, tuple[int, ...]] = {"linear.weight": matrix}
    if step.bias:
        shapes["linear.bias"] = (step.width_out,)
    if step.residual and step.width_in != step.width_out:
        shapes["residual.weight"] = matrix
    return shapes
