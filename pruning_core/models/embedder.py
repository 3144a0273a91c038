"""Making of a model's embedder: sentence-transformers' own modules, with the weights that lie beside the model."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

import torch
from safetensors.torch import load_file
from torch import nn

from pruning_core.checks.recipe import DenseStep, NormStep, PoolingStep, Recipe, Step, UnitStep
from pruning_core.errors import ModelUnreadable
from pruning_core.machine.finite import require_finite
from pruning_core.machine.resources import raise_if_exhausted
from pruning_core.tasks.embedder import Embedder, prompt_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_embedder(
    folder: Path, recipe: Recipe, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, device: torch.device
) -> Embedder:
    """Make the modules that a recipe names, and prepare the tokenizer as sentence-transformers does.

    Args:
        folder: The checkpoint.
        recipe: What its files say of embeddings.
        model: The model, for the width of its states and the number of its positions.
        tokenizer: Its tokenizer, which is changed in place: it puts texts in lower case and cuts them as the recipe says.
        device: Device that the modules run on.

    Raises:
        ModelUnreadable: The weights of a module are missing or do not fit.
        NotFinite: A weight is NaN or infinite.
    """
    modules = [_module(folder, step, model.config.hidden_size) for step in recipe.steps]
    _prepare_(tokenizer, recipe, getattr(model.config, "max_position_embeddings", None))
    counted: int | None = None
    if recipe.prompt:
        ids = tokenizer(recipe.prompt, truncation=True)["input_ids"]
        counted = prompt_tokens(torch.tensor(ids), tokenizer.all_special_ids)
    return Embedder(recipe, [module.requires_grad_(False).eval().to(device) for module in modules], counted)


def _prepare_(tokenizer: Any, recipe: Recipe, positions: int | None) -> None:
    """Set the tokenizer's longest text, padding and lower case, in place, as sentence-transformers' first module does."""
    if recipe.most_tokens is not None:
        tokenizer.model_max_length = recipe.most_tokens
    elif isinstance(positions, int) and positions > 0:
        tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
    if recipe.padding_side is not None:
        tokenizer.padding_side = recipe.padding_side
    if not recipe.lower_case:
        return
    from tokenizers import normalizers

    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelUnreadable(
            "sentence_bert_config.json asks for do_lower_case, and this tokenizer cannot be told to; give a model with a "
            "tokenizer.json",
            param="model",
        )
    own = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])


def _module(folder: Path, step: Step, hidden: int) -> nn.Module:
    from sentence_transformers.sentence_transformer import modules

    match step:
        case PoolingStep():
            return modules.Pooling(step.width or hidden, step.modes, step.include_prompt)  # pyright: ignore[reportArgumentType] - the modes are theirs, by the recipe
        case DenseStep():
            activation: nn.Module = getattr(nn, step.activation)()
            dense = modules.Dense(step.width_in, step.width_out, step.bias, activation, use_residual=step.residual)
            return _with_weights(dense, folder, step.folder)
        case NormStep():
            return _with_weights(modules.LayerNorm(step.width), folder, step.folder)
        case UnitStep():
            return modules.Normalize()
        case _:
            assert_never(step)


def _with_weights(module: nn.Module, folder: Path, own: str) -> nn.Module:
    """Load a module's weights, in float32."""
    name = f"{own}/model.safetensors"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module.load_state_dict(load_file(folder / own / "model.safetensors"))
    except Exception as error:  # safetensors has errors of its own, and load_state_dict raises RuntimeError
        raise_if_exhausted(error, "a module of sentence-transformers was loaded")
        raise ModelUnreadable(f"{name} does not hold the weights that its config.json says", param="model") from error
    for key, weight in module.named_parameters():
        require_finite(weight, f"the tensor {key} of {name}", param="model")
    return module
