"""Load checkpoints as users do, in a process of its own, and print what they answer: ``python load.py plug-in|remote-code``.

Stdin is a JSON list of checkpoints: ``folder``, ``loads_as``, ``inputs``, and ``generates`` for those that write. Stdout is the
list of answers. With ``remote-code``, nothing of Coppice can be imported, and the bundle's own loader is trusted instead.
"""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

NEW_TOKENS = 6
_OURS = ("app", "coppice", "pruning_core", "worker")


def answer(checkpoint: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Give the outputs of one checkpoint, the tokens that it writes, and what the loader says of its weights."""
    import torch
    import transformers

    loader = getattr(transformers, checkpoint["loads_as"])
    model, told = loader.from_pretrained(checkpoint["folder"], dtype=torch.float32, output_loading_info=True, **options)
    model.eval()
    words = transformers.AutoTokenizer.from_pretrained(checkpoint["folder"])("word1 good word3")["input_ids"]
    inputs = {name: torch.tensor(values) for name, values in checkpoint["inputs"].items()}
    with torch.no_grad():
        logits = model(**inputs).logits
        written = write(model, inputs) if checkpoint["generates"] else None
    return {
        "logits": logits.tolist(),
        "written": written,
        "words": words,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights": weights_digest(model),
        "told": {name: sorted(map(str, found)) for name, found in told.items() if found},
    }


def weights_digest(model: Any) -> str:
    """Hash all weights by name, bit for bit."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def write(model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """Give the tokens that a model writes, the likeliest each time, and how far the second likeliest was at the closest."""
    given = {name: values for name, values in inputs.items() if not name.startswith("decoder_")}
    lengths = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS}
    told = model.generate(**given, **lengths, do_sample=False, output_logits=True, return_dict_in_generate=True)
    best = [logits.topk(2).values for logits in told.logits]
    return {"tokens": told.sequences.tolist(), "margin": min(float((two[:, 0] - two[:, 1]).min()) for two in best)}


def main(how: str) -> None:
    """Read the checkpoints and print their answers."""
    options: dict[str, Any] = {}
    if how == "remote-code":
        sys.modules.update(dict.fromkeys(_OURS))  # None there: as if not installed
        options["trust_remote_code"] = True
    else:
        import pruning_core  # noqa: F401 - teaches transformers to read bundles
    print(json.dumps([answer(checkpoint, options) for checkpoint in json.load(sys.stdin)]))  # noqa: T201 - its result


if __name__ == "__main__":
    main(sys.argv[1])
