"""See README.md."""

import json

from safetensors.torch import load_file, save_file
from tiny import MODEL, classifier, jsonl

jsonl()
classifier()
tensors = load_file(MODEL / "model.safetensors")
(MODEL / "model.safetensors").unlink()
first = dict(list(tensors.items())[:9])
save_file(first, MODEL / "model-00001-of-00002.safetensors", metadata={"format": "pt"})
places = {name: f"model-0000{1 if name in first else 2}-of-00002.safetensors" for name in tensors}
(MODEL / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
