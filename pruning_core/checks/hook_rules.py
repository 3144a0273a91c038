"""What entries of a model's JSON files may say, key by key: an allow-list of values for each kind of hook. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, cast

from pruning_core.arch.structure import ABSENT
from pruning_core.plugin.words import OURS, plain_config

# How transformers may compute attention and mixtures of experts without loading anything: by names of its own.
ATTENTIONS = frozenset({"eager", "sdpa", "flex_attention"})
EXPERTS = frozenset({"eager", "batched_mm", "grouped_mm"})
# Attributes of attention modules that our own bundles state, by `arch.sublayer`.
COUNTS = frozenset(
    {
        *("num_attention_heads", "num_heads", "n_heads", "num_key_value_heads", "num_kv_heads"),
        *("position_heads", "config_heads", "q_bias", "v_bias"),
        *("all_head_size", "split_size", "inner_dim", "hidden_size", "embed_dim"),
    }
)
# Entries whose values are words for people or tokens; nothing below them is an argument.
TEXTS = frozenset({"id2label", "label2id", "chat_template", "added_tokens_decoder", "prompts", "task_specific_params"})
# Entries that a model with a native class can do without, and the values of which that holds.
LEFT_OUT: Mapping[str, Callable[[object], bool]] = {
    "auto_map": lambda _value: True,
    "custom_pipelines": lambda _value: True,
    "trust_remote_code": lambda _value: True,
}
_DTYPE = re.compile(r"(auto|b?float\d{0,2}(_\w{1,16})?|half|double|long|short|int|u?int\d{1,2}|bool|complex\d{2,3})")
_TOKENIZER = re.compile(r"(?!Auto)\w{0,80}(Tokenizer|TokenizerFast|Backend)", re.ASCII)
_PROCESSOR = re.compile(r"(?!Auto)\w{0,80}(Processor|FeatureExtractor)\w{0,20}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][\w.\-]{0,127}", re.ASCII)
_ACTIVATION = re.compile(r"torch\.nn(\.modules\.(activation|linear))?\.[A-Z]\w{1,63}", re.ASCII)
_MODULE = re.compile(r"sentence_transformers(\.\w{1,64}){1,8}", re.ASCII)
_MODULE_FOLDER = re.compile(r"(\w[\w.\-]{0,63})?", re.ASCII)
_OURS = re.compile(r"modeling_coppice\.Coppice\w{1,128}", re.ASCII)
_PIECES = frozenset({"enable_sampling", "nbest_size", "alpha", "add_bos", "add_eos", "reverse", "emit_unk_piece"})
# transformers replaces these by what it found in the folder, whatever they say; many honest files have stale ones.
_STALE = frozenset({"tokenizer_file", "special_tokens_map_file", "name_or_path", "_name_or_path"})
_PLACES = ("_file", "_files", "_path", "_dir", "_spm", "_filename")
_CLASSES: Mapping[str, re.Pattern[str]] = {
    "tokenizer_class": _TOKENIZER,
    "fast_tokenizer_class": _TOKENIZER,
    "slow_tokenizer_class": _TOKENIZER,
    "processor_class": _PROCESSOR,
    "image_processor_type": _PROCESSOR,
    "feature_extractor_type": _PROCESSOR,
    "video_processor_type": _PROCESSOR,
}
# What they would have loaded, for entries that must be absent, null or false.
_NEVER: Mapping[str, str] = {
    "use_kernels": "has kernels fetched from the Hub",
    "kernel_config": "has kernels fetched from the Hub",
    "custom_generate": "names code that would generate",
    "transformers_weights": "names other weights than model.safetensors",
    "gguf_file": "names other weights than model.safetensors",
    "_auto_class": "has code copied beside the checkpoint",
    "backbone": "has another model loaded",
    "use_pretrained_backbone": "has another model loaded",
    "use_timm_backbone": "has another library loaded",
    "repo_path": "has files read from elsewhere",
    "init_inputs": "hands over arguments without a name",
    "compression_config": "has another library loaded",
}
# Their further entries become attributes, which nothing opens; those of other files become arguments.
_CONFIGS = ("config.json", "generation_config.json")
_ABSENT: tuple[object, ...] = (None, False, "", [], {})
_REMEDY = "remove the entry"


def hook_of(name: str, key: str, value: object) -> str | None:
    """Return what is wrong with an entry of a model's JSON file, or None where it is no hook.

    Args:
        name: Name of the file.
        key: Key of the entry.
        value: Its value.

    Returns:
        The second half of a sentence that begins with the key.
    """
    if key in _NEVER:
        return None if value in _ABSENT else f"{_NEVER[key]}, which is not done here; {_REMEDY}"
    found: str | None = None
    if key == "quantization_config":
        found = _hook_of_quantization(value)
    elif key == OURS and isinstance(value, dict):  # of a bundle of ours: what stands in its base model's quantization_config
        found = _hook_of_quantization({**cast("dict[str, object]", value), "quant_method": OURS})
    elif key in _CLASSES:
        found = _unless(value, _CLASSES[key], "must name a class of transformers of that kind")
    elif key.endswith(("_implementation", "_implementation_internal")):
        found = _hook_of_implementation(key, value)
    elif key == "dtype" or key.endswith("_dtype"):
        found = _unless(value, _DTYPE, "must name a type of numbers such as float32")
    elif "kernel" in key.lower():
        found = None if _is_plain(value) else f"names a kernel, which is not loaded here; {_REMEDY}"
    elif key == "activation_function" and name not in _CONFIGS:  # of a Dense module, which imports it by that name
        found = _unless(value, _ACTIVATION, "must name an activation of torch.nn, such as torch.nn.modules.activation.Tanh")
    elif name not in _CONFIGS:
        found = _hook_of_argument(name, key, value)
    return found


def is_ours(config: object) -> bool:
    """Return whether a configuration's ``auto_map`` is that of a bundle of ours, whose code is the plug-in's."""
    if not isinstance(config, dict):
        return False
    entries = plain_config(cast("dict[str, Any]", config))
    own, named = entries.get("quantization_config"), entries.get("auto_map")
    if not isinstance(own, dict) or not isinstance(named, dict):
        return False
    values = cast("dict[str, object]", named).values()
    method = cast("dict[str, Any]", own).get("quant_method")
    return method == OURS and all(isinstance(value, str) and _OURS.fullmatch(value) for value in values)


def hooks_of_modules(modules: object) -> tuple[str, str] | None:
    """Return the key in sentence-transformers' list of modules that is a hook, and what is wrong with it; None if none is."""
    for module in cast("list[object]", modules) if isinstance(modules, list) else [modules]:
        entries = cast("dict[str, object]", module) if isinstance(module, dict) else {}
        kind, path = entries.get("type"), entries.get("path", "")
        if not isinstance(kind, str) or not _MODULE.fullmatch(kind):
            return "type", "must name a module of sentence_transformers; code of the model's own is not run"
        if not isinstance(path, str) or not _MODULE_FOLDER.fullmatch(path):
            return "path", "must be the name of a folder beside the weights"
    return None


def _hook_of_implementation(key: str, value: object) -> str | None:
    if isinstance(value, dict):  # one for each part of the model
        return next(
            (why for own in cast("dict[str, object]", value).values() if (why := _hook_of_implementation(key, own))), None
        )
    if (
        "attn" not in key and "attention" not in key and "experts" not in key
    ):  # such as that of a cache, by a name of transformers'
        return _unless(value, _NAME, "must be a name")
    allowed = EXPERTS if "experts" in key else ATTENTIONS
    if value is None or (isinstance(value, str) and value in allowed):
        return None
    return f"must be {', '.join(sorted(allowed))} or absent: other implementations are loaded from elsewhere; {_REMEDY}"


def _hook_of_quantization(value: object) -> str | None:
    """Allow our own bundles' entry alone: every other has another library loaded."""
    if value is None:
        return None
    entries = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    if entries.get("quant_method") != OURS:
        return "has another library loaded; give the checkpoint as it was before quantisation"
    counts: object = entries.get("counts")
    for own in cast("dict[str, object]", counts).values() if isinstance(counts, dict) else ():
        for name, count in cast("dict[str, object]", own).items() if isinstance(own, dict) else (("", None),):
            if name not in COUNTS or not _are_counts(count):
                return "states counts that no bundle of Coppice has"
    return None if _are_absent(entries.get("absent")) else "states absent attentions that no bundle of Coppice has"


def _hook_of_argument(name: str, key: str, value: object) -> str | None:
    """Look at what tokenizers, processors and sentence-transformers get as an argument of that name."""
    if key.endswith("_kwargs") and isinstance(value, dict):
        given = cast("dict[str, object]", value)
        if key == "sp_model_kwargs" and not given.keys() <= _PIECES:
            return f"may have {', '.join(sorted(_PIECES))}"
        if any(isinstance(own, str) and _leads_away(own) for own in given.values()):
            return f"names a file; {_REMEDY}"
    # The map of tokens is read after the folder was looked through, so that here even stale entries would be opened.
    if not key.endswith(_PLACES) or (key in _STALE and name != "special_tokens_map.json"):
        return None
    places = cast("list[object]", value) if isinstance(value, list) else [value]
    if name != "special_tokens_map.json" and all(
        own is None or (isinstance(own, str) and not _leads_away(own)) or isinstance(own, bool | int) for own in places
    ):
        return None
    return f"names a file; a model's files lie beside its weights, and are found by their names; {_REMEDY}"


def _leads_away(place: str) -> bool:
    return any(sign in place for sign in ("/", "\\", "..", "~", "\0"))


def _unless(value: object, allowed: re.Pattern[str], must: str) -> str | None:
    if isinstance(value, dict):  # one for each part of the model
        return next((must for own in cast("dict[str, object]", value).values() if _unless(own, allowed, must)), None)
    return None if value is None or not isinstance(value, str | list) or _matches(value, allowed) else must


def _matches(value: object, allowed: re.Pattern[str]) -> bool:
    return isinstance(value, str) and allowed.fullmatch(value) is not None


def _is_plain(value: object) -> bool:
    """Return whether a value is numbers alone: sizes of convolutions are called kernels, too."""
    if isinstance(value, list):
        return all(map(_is_plain, cast("list[object]", value)))
    return value is None or isinstance(value, bool | int | float)


def _are_absent(value: object) -> bool:
    """Return whether a value names attentions of layers behind the first, each with the norm before it."""
    if value is None:
        return True
    pairs = cast("dict[str, object]", value).items() if isinstance(value, dict) else (("", None),)
    return all(ABSENT.fullmatch(path) and norm == f"{path.removesuffix('self_attn')}input_layernorm" for path, norm in pairs)


def _are_counts(value: object) -> bool:
    items = cast("list[object]", value) if isinstance(value, list) else [value]
    return all(isinstance(item, int) for item in items)
