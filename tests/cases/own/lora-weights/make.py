"""See README.md."""

import torch
from safetensors.torch import load_file, save_file
from tiny import MODEL, classifier, jsonl, rename_weights

jsonl()
classifier()
rename_weights(lambda name: "base_model.model." + name.replace("query.weight", "query.base_layer.weight"))

tensors = load_file(MODEL / "model.safetensors")
for name in [name for name in tensors if "base_layer" in name]:
    for part, shape in (("A", (4, 32)), ("B", (32, 4))):
        tensors[name.replace("base_layer.weight", f"lora_{part}.default.weight")] = torch.zeros(shape)
save_file(tensors, MODEL / "model.safetensors", metadata={"format": "pt"})
