"""Hooks that a model's files may have: for the tests of the core, and for the attacks on the service."""

from __future__ import annotations

from typing import Any

KERNEL = "evil-org/evil-kernel:attention"
FOREIGN = {"AutoModelForSequenceClassification": "evil-org/evil--evil.EvilModel", "AutoConfig": "evil.EvilConfig"}
READER = "tokenizer_config.json"
TOKENS = "special_tokens_map.json"
OURS = {"quant_method": "coppice", "linears": {}}
WRAPPED = {"model_type": "coppice", "base_model_type": "bert"}

REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "attention kernel": ("config.json", {"attn_implementation": KERNEL}),
    "attention kernel, private": ("config.json", {"_attn_implementation": KERNEL}),
    "attention kernel, internal": ("config.json", {"_attn_implementation_internal": KERNEL}),
    "attention kernel with a revision": ("config.json", {"attn_implementation": "evil-org/evil@main"}),
    "attention kernel by a prefix": ("config.json", {"attn_implementation": f"paged|{KERNEL}"}),
    "attention of another library": ("config.json", {"attn_implementation": "flash_attention_2"}),
    "attention by parts": ("config.json", {"attn_implementation": {"text_config": KERNEL}}),
    "attention of a nested model": ("config.json", {"text_config": {"vision_config": {"_attn_implementation": KERNEL}}}),
    "attention in a list": ("config.json", {"sub_configs": [{"attn_implementation": KERNEL}]}),
    "experts kernel": ("config.json", {"experts_implementation": "deepgemm"}),
    "experts kernel, private": ("config.json", {"_experts_implementation": KERNEL}),
    "kernels": ("config.json", {"use_kernels": True}),
    "kernel table": ("config.json", {"kernel_config": {"RMSNorm": KERNEL}}),
    "kernel by another name": ("config.json", {"rms_norm_kernel": KERNEL}),
    "library of quantisation": ("config.json", {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}),
    "quantisation without a name": ("config.json", {"quantization_config": {"modules_to_not_convert": []}}),
    "attribute through our own entry": ("config.json", {"quantization_config": OURS | {"counts": {"bert": {"forward": 1}}}}),
    "attribute through a bundle's own words": (
        "config.json",
        WRAPPED | {"coppice": {"linears": {}, "counts": {"bert": {"forward": 1}}}},
    ),
    "absence through our own entry": (
        "config.json",
        {"quantization_config": OURS | {"absent": {"bert.encoder": "bert.pooler"}}},
    ),
    "text through our own entry": ("config.json", {"quantization_config": OURS | {"counts": {"bert": {"num_heads": "x"}}}}),
    "type that is no type": ("config.json", {"dtype": "load"}),
    "old type that is no type": ("config.json", {"torch_dtype": "hub.load"}),
    "type of a part": ("config.json", {"dtype": {"text_config": "load"}}),
    "router type": ("config.json", {"router_dtype": "load"}),
    "other weights": ("config.json", {"transformers_weights": "../other/model.safetensors"}),
    "code beside the checkpoint": ("config.json", {"_auto_class": "AutoConfig"}),
    "backbone of the Hub": ("config.json", {"backbone": "evil-org/evil", "use_pretrained_backbone": True}),
    "backbone of timm": ("config.json", {"use_timm_backbone": True}),
    "generation": ("generation_config.json", {"custom_generate": "evil-org/evil"}),
    "model type that is no text": ("config.json", {"model_type": ["bert"]}),
    "class of tokenizer": (READER, {"tokenizer_class": "AutoModel"}),
    "class of tokenizer in the config": ("config.json", {"tokenizer_class": "pipeline"}),
    "class of tokenizer that looks elsewhere": (READER, {"tokenizer_class": "AutoTokenizer"}),
    "class of processor": (READER, {"processor_class": "AutoProcessor"}),
    "class of image processor": ("preprocessor_config.json", {"image_processor_type": "evil.Evil"}),
    "class of feature extractor": ("preprocessor_config.json", {"feature_extractor_type": "Trainer"}),
    "absolute vocabulary": (READER, {"vocab_file": "/etc/passwd"}),
    "vocabulary above": (READER, {"vocab_file": "../other/vocab.txt"}),
    "vocabulary of the working directory": (READER, {"merges_file": "uploads/other/merges.txt"}),
    "positional arguments": (READER, {"init_inputs": ["/etc/passwd"]}),
    "tokenizer files": (READER, {"fast_tokenizer_files": ["../other/tokenizer.4.0.0.json"]}),
    "pieces": (READER, {"sp_model_kwargs": {"model_file": "/etc/passwd"}}),
    "dictionary": (READER, {"mecab_kwargs": {"mecab_option": "-r /etc/passwd"}}),
    "gguf": (READER, {"gguf_file": "model.gguf"}),
    "vocabulary by the map of tokens": (TOKENS, {"vocab_file": "vocab.txt"}),
    "tokenizer by the map of tokens": (TOKENS, {"tokenizer_file": "/etc/passwd"}),
    "other repository": ("preprocessor_config.json", {"repo_path": "evil-org/evil", "class_info_file": "a.json"}),
    "sentence-transformers' arguments": ("sentence_bert_config.json", {"model_args": {"attn_implementation": KERNEL}}),
    "adapter": ("adapter_config.json", {"base_model_name_or_path": "evil-org/evil"}),
}
MODULES = {
    "module of the model's": ("evil.Module", "1_Pooling"),
    "module of Python's": ("os.system", ""),
    "module elsewhere": ("sentence_transformers.models.Pooling", "../../other"),
    "absolute module": ("sentence_transformers.models.Pooling", "/etc"),
}
