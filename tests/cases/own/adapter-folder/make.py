"""See README.md."""

import json

from tiny import MODEL, jsonl

jsonl()
MODEL.mkdir()
(MODEL / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "acme/base"}))
(MODEL / "adapter_model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
