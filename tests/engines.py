"""Tiny decoders in the shapes of engines, and interpreters of engines that misbehave: small programs in the place of Python."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

from tests import tiny

HIDDEN, LAYERS, WIDE = 64, 3, 1024  # heads of 32, the narrowest that vLLM takes


def write_llama(folder: Path, *, width: int = WIDE, keys: int = 1, seed: int = 0) -> Path:
    """Write a tiny random Llama whose answers are far enough apart to be compared."""
    import torch
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=len(tiny.SPECIAL + tiny.WORDS),
        hidden_size=HIDDEN,
        intermediate_size=width,
        num_hidden_layers=LAYERS,
        num_attention_heads=2 * keys,
        num_key_value_heads=keys,
        head_dim=32,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    torch.manual_seed(seed)
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.15)
    model.save_pretrained(folder)
    tiny.write_tokenizer(folder)
    return folder


def weaken_attention(folder: Path, *, layer: int) -> Path:
    """Make the attention of a layer of a written Llama add nearly nothing, and all others twice as much."""
    import torch
    import transformers

    model = transformers.LlamaForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for place, block in enumerate(model.model.layers):
            block.self_attn.o_proj.weight.mul_(0.001 if place == layer else 2.0)
    model.save_pretrained(folder)
    return folder


def write_texts(folder: Path, rows: int = 40) -> Path:
    """Write texts that have enough tokens each."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation"):
        lines = [json.dumps({"text": " ".join(tiny.WORDS[(7 * row + 3 * at) % 62] for at in range(24))}) for row in range(rows)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


# What stands before each: it answers who asks which versions it has, as an interpreter with the engine would.
_HEAD = f"""#!{sys.executable}
import json, os, pathlib, subprocess, sys, time
if "-c" in sys.argv:
    at = sys.argv.index("-c") + 2
    answer = {{"versions": {{sys.argv[at + 1].split("|")[0]: "1.2.3"}}, "wrong": None}}
    pathlib.Path(sys.argv[at]).write_text(json.dumps(answer))
    sys.exit()
script, request, result, parent, stage = sys.argv[2:7]
REAL = [{sys.executable!r}, "-P", str(pathlib.Path(script).with_name("run_transformers.py")), request, result]
"""


def write_interpreter(folder: Path, name: str, body: str, *, head: str = _HEAD) -> Path:
    """Write the interpreter of an engine as a small program; ``REAL`` in it is the command of transformers' own run."""
    program = folder / name / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.write_text(head + body)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return folder
