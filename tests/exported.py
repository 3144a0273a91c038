"""Checkpoints for the tests of further forms: tiny models, written and loaded back as a job does."""

from __future__ import annotations

from pathlib import Path

from tests import tiny

PROBES = (("word1 word2 good word3 word4",), ("bad word5 word6 word7 word8 word9",))


def write_llama(folder: Path, *, dtype: str = "bfloat16", **sizes: int) -> Path:
    """Write a decoder with weights large enough for every one to matter."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    common = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tiny.SPECIAL + tiny.WORDS) + 13, max_position_embeddings=64, **(common | sizes))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=1.5 / parameter.shape[-1] ** 0.5)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    tiny.write_tokenizer(folder)
    return folder


def write_bert(folder: Path, *, dtype: str = "float32", task: str = "classification") -> Path:
    """Write an encoder of tensors that are large enough to be stored in another type."""
    import torch

    sizes = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128}
    tiny.build_model("bert", task=task, **sizes).to(getattr(torch, dtype)).save_pretrained(folder)
    tiny.write_tokenizer(folder)
    return folder


def write_vit(folder: Path) -> Path:
    """Write a model of pictures, and how they are prepared."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ViTForImageClassification(ViTConfig(image_size=16, patch_size=8, num_labels=3, **sizes)).save_pretrained(folder)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def asked(folder: Path, task: str = "text-generation", **options: object):
    """Return a written checkpoint with what is asked of it, as a job has it."""
    import torch

    from pruning_core.artifacts.exports.base import Exported
    from pruning_core.artifacts.probes import ProbeInput
    from pruning_core.models.load import load_task_model
    from pruning_core.spec.artifacts import ArtifactSpec
    from pruning_core.spec.prune import LatencySpec

    model = load_task_model(folder, task, torch.device("cpu"))
    probes = () if task == "image-classification" else (ProbeInput(PROBES, 16),)
    spec = ArtifactSpec.model_validate({"layout": "stock"} | options)
    return Exported(folder, model, model, spec, probes, LatencySpec(batch=2, length=16, repeats=3))
