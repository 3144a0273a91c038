"""The part of the fresh process that loads and looks as users do: by sentence-transformers, and at what decides results.

`fresh` imports it by its path. Like `fresh`, it must not import anything of the package that it lies in.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Texts whose tokens are compared with those of the source's tokenizer, beside the probes and the tokens that were added.
ODD_TEXTS = ("MiXeD CaSe  and   spaces", "ünïcödé 中文 🙂", "line one\nline two\t.", "")
MOST_ADDED = 64
FEW = 8
MOST_TOKENS = 512


@dataclass
class Embedder:
    """The modules of sentence-transformers behind the model, and the text that it puts in front of every text."""

    modules: list[Any]
    prompt: str
    prompt_tokens: int | None
    first_values: int | None
    unit: bool

    def embed(self, states: Any, mask: Any) -> Any:
        """Make embeddings of the token states of the model, wherever they were computed."""
        features: dict[str, Any] = {"token_embeddings": states.to(self.device), "attention_mask": mask.to(self.device)}
        if self.prompt_tokens is not None:
            features["prompt_length"] = self.prompt_tokens
        for module in self.modules:
            features = module(features)
        return self.scaled(features["sentence_embedding"][..., : self.first_values])

    def scaled(self, embeddings: Any) -> Any:
        """Scale to unit length where embeddings are compared by their directions alone."""
        import torch

        return torch.nn.functional.normalize(embeddings, dim=-1) if self.unit else embeddings

    @property
    def device(self) -> Any:
        """The device of the modules; the CPU where none has weights."""
        weights = next((weight for module in self.modules for weight in module.parameters()), None)
        return "cpu" if weights is None else weights.device


def prove_sentences(
    folder: str, request: dict[str, Any], device_map: dict[str, str] | None
) -> tuple[Embedder, Any, list[list[list[float]]]]:
    """Load a checkpoint by sentence-transformers as its users do, and encode the probes.

    Returns:
        The modules behind the model, its tokenizer, and the embeddings of each probe.
    """
    import torch
    from sentence_transformers import SentenceTransformer

    place: dict[str, Any] = {"device_map": device_map, "offload_folder": "offload"} if device_map else {}
    whole: Any = SentenceTransformer(
        folder,
        device=None if device_map else request["device"],
        local_files_only=True,
        trust_remote_code=request["trust_remote_code"],
        model_kwargs={"dtype": torch.float32, **place},
    )
    prompt = (whole.prompts.get(whole.default_prompt_name) or "") if whole.default_prompt_name is not None else ""
    counted = whole.preprocess(["a text"], prompt=prompt).get("prompt_length") if prompt else None
    modules = list(whole.children())[1:]
    embedder = Embedder(modules, prompt, counted, whole.truncate_dim, request["sentences"]["unit"])
    longest = whole.max_seq_length
    encoded: list[list[list[float]]] = []
    for probe in request["probes"]:
        whole.max_seq_length = probe["length"]
        texts = [row[0] if len(row) == 1 else list(row) for row in probe["texts"]]
        # One at a time: where positions are absolute, padding on the left would change what a text's embedding is.
        found = whole.encode(texts, batch_size=1, convert_to_tensor=True, show_progress_bar=False)
        encoded.append(embedder.scaled(found).float().cpu().tolist())
    whole.max_seq_length = longest
    return embedder, whole.tokenizer, encoded


def facts(model: Any, processor: Any, texts: Sequence[str]) -> dict[str, Any]:
    """Describe what else decides the results of users, by name. The worker describes the source by this function, too."""
    config = model.config.to_dict()
    found: dict[str, Any] = {
        "labels": [config.get(name) for name in ("id2label", "problem_type", "task_specific_params")],
        "rope": [
            [name, buffer.tolist()]
            for name, buffer in model.named_buffers()
            if name.endswith("inv_freq") and not buffer.is_meta
        ],
    }
    if model.can_generate():
        written = model.generation_config.to_dict()
        found["generation"] = {
            key: value for key, value in written.items() if key not in ("transformers_version", "_from_model_config")
        }
    if not hasattr(processor, "all_special_ids"):
        settings = processor.to_dict()
        found["image processor"] = {key: value for key, value in settings.items() if not key.endswith(("_type", "_class"))}
        return json.loads(json.dumps(found, default=str))
    added = sorted(token.content for token in processor.added_tokens_decoder.values())[:MOST_ADDED]
    odd = [*ODD_TEXTS, *texts, *(text.upper() for text in texts[:FEW]), *(f"one {token} two{token}" for token in added)]
    found["tokens"] = [processor(text, truncation=True, max_length=MOST_TOKENS)["input_ids"] for text in odd]
    names = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
    found["special tokens"] = {name: getattr(processor, f"{name}_token_id") for name in names}
    found["tokenizer settings"] = [processor.padding_side, processor.truncation_side, processor.model_max_length]
    found["chat template"] = processor.chat_template
    return json.loads(json.dumps(found, default=str))
