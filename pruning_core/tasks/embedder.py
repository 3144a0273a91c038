"""From token states to the embedding that users get: the modules of sentence-transformers behind a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from pruning_core.checks.recipe import Recipe
from pruning_core.shapes import Float, Int


class Module(Protocol):
    """A module of sentence-transformers: it adds its result to the features, in place, and returns them."""

    def __call__(self, features: dict[str, Any], /) -> dict[str, Any]:
        """Compute the module's result."""
        ...


@dataclass(frozen=True, slots=True)
class Embedder:
    """The modules behind the Transformer, and what is done to texts before it.

    Attributes:
        recipe: What the model's files say.
        modules: The modules, with weights that need no gradient.
        prompt_tokens: Number of tokens of the default prompt; None without one. A pooling may leave them out.
    """

    recipe: Recipe
    modules: Sequence[Module]
    prompt_tokens: int | None = None

    @property
    def unit(self) -> bool:
        """Whether embeddings are compared by their directions alone, so that unit length loses nothing."""
        return self.recipe.similarity == "cosine"

    def embed(self, states: Float[Tensor, "b s h"], inputs: Mapping[str, Tensor]) -> Float[Tensor, "b d"]:
        """Make one embedding of each text, as `encode` does; in unit length if lengths do not count."""
        features: dict[str, Any] = {"token_embeddings": states, "attention_mask": inputs["attention_mask"]}
        if self.prompt_tokens is not None:
            features["prompt_length"] = self.prompt_tokens
        for module in self.modules:
            features = module(features)
        found: Tensor = features["sentence_embedding"][..., : self.recipe.first_values]
        return torch.nn.functional.normalize(found, dim=-1) if self.unit else found

    def prompted(self, texts: tuple[str, ...]) -> tuple[str, ...]:
        """Put the default prompt in front of a text, or of the first of two that are read as one."""
        return (self.recipe.prompt + texts[0], *texts[1:]) if self.recipe.prompt else texts

    def similarities(self, first: Float[Tensor, "n d"], second: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Compare pairs of embeddings as the model's users do; the larger, the more alike."""
        match self.recipe.similarity:
            case "cosine" | "dot":  # of embeddings of unit length, the cosine is the product
                return (first * second).sum(-1)
            case "euclidean":
                return -(first - second).norm(dim=-1)
            case "manhattan":
                return -(first - second).abs().sum(-1)


def prompt_tokens(prompt_ids: Int[Tensor, " s"], special: Sequence[int]) -> int:
    """Count a prompt's tokens, without a special token at its end, as sentence-transformers does."""
    return len(prompt_ids) - int(len(prompt_ids) > 0 and int(prompt_ids[-1]) in special)
