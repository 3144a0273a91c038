"""What tensors transformers' models need of a checkpoint, with their shapes: a file of `pruning_core.checks`, and a test of it.

Every class is made on the meta device, of three configurations whose sizes all differ. A shape that is the same function of a
few sizes in all three is written as that function; of other shapes nothing is said. The entries of a configuration that
change which tensors there are, are found by trying them; a configuration with values that were not tried is not judged.

Run as a module to write the file anew: ``python -m tests.expected_tensors``.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pruning_core.checks.heads import LOADED_BY
from pruning_core.checks.tensors import flag_of, sizes_of

PLACE = Path(__file__).parents[1] / "pruning_core" / "checks" / "expected_tensors.json"

_VARIANTS = 3
_SIZES: Mapping[str, tuple[int, int, int]] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim"), (48, 96, 120)),
    "embedding_size": (20, 28, 36),
    "word_embed_proj_dim": (22, 30, 38),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"), (4, 6, 10)),
    "decoder_attention_heads": (2, 3, 5),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), (2, 3, 2)),  # of other shares of the heads than one
    **dict.fromkeys(("intermediate_size", "n_inner", "hidden_dim", "d_ff", "ffn_dim", "ffn_hidden_size"), (101, 103, 107)),
    "encoder_ffn_dim": (101, 103, 107),
    "decoder_ffn_dim": (109, 113, 127),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers"), (2, 3, 4)),
    **dict.fromkeys(("num_decoder_layers", "decoder_layers"), (3, 4, 2)),
    "vocab_size": (73, 79, 83),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), (66, 70, 74)),
    "type_vocab_size": (9, 11, 13),
    "task_type_vocab_size": (15, 17, 19),
    **dict.fromkeys(("head_dim", "d_kv"), (14, 18, 26)),
    "relative_attention_num_buckets": (8, 14, 16),
    "relative_attention_max_distance": (31, 33, 35),
    "position_buckets": (21, 23, 25),
    "image_size": (24, 20, 21),
    "patch_size": (4, 5, 3),
    "num_channels": (5, 6, 7),
    "mlp_ratio": (3, 5, 2),
    "num_register_tokens": (6, 7, 8),
    "pooler_output_size": (51, 53, 59),
    "num_labels": (29, 41, 43),
}
# Sizes that are set only where they are part of a try.
_TRIED = ("position_buckets", "num_labels")
_LESS_IS_MORE = 2  # larger constants are sizes that were not varied
_EQUAL = ("embedding_size==hidden_size", "word_embed_proj_dim==hidden_size")
_POSITIVE = ("type_vocab_size>0", "position_buckets>0")
# Only as they are by default: of other values nothing is said.
_AS_DEFAULT = ("max_relative_positions>0", "conv_kernel_size>0")
_CHOICES: Mapping[str, tuple[Any, ...]] = {
    "feed_forward_proj": ("relu", "gated-gelu", "gated-silu", "gelu", "silu"),
    "norm_rel_ebd": ("none", "layer_norm"),
    "pos_att_type": ([], ["p2c", "c2p"], ["c2p", "p2c"], ["c2p"], ["p2c"]),
    "position_embedding_type": ("absolute",),
}
# Entries that classes read and configurations do not declare.
_UNDECLARED: Mapping[str, Mapping[str, Any]] = {
    "deberta-v2": {
        "position_buckets": -1,
        "share_att_key": False,
        "norm_rel_ebd": "none",
        "conv_kernel_size": 0,
        "embedding_size": 0,
    }
}
# Where entries only matter together.
_BY_HAND: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "deberta-v2": {
        "relative_attention": (True,),
        "pos_att_type": (["p2c", "c2p"], ["c2p", "p2c"]),
        "share_att_key": (False, True),
        "norm_rel_ebd": ("none", "layer_norm"),
        "position_biased_input": (True, False),
        "type_vocab_size>0": (False, True),
        "position_buckets>0": (False, True),
        "embedding_size==hidden_size": (True,),
        "tie_word_embeddings": (True,),
        "legacy": (True,),
        "max_relative_positions>0": (False,),
        "conv_kernel_size>0": (False,),
    },
    "falcon": {
        "bias": (False, True),
        "multi_query": (True, False),
        "new_decoder_architecture": (False, True),
        "parallel_attn": (True, False),
        "num_ln_in_parallel_attn": (None, 1, 2),
        "tie_word_embeddings": (True,),
    },
}
# They change what is computed, returned or trained, and no weights.
_IDLE = re.compile(
    r"use_cache|output_|return_|.*dropout|gradient|scale_|torchscript|add_cross_attention_.*|do_sample|early_stop|is_gated_act"
)


def text() -> str:
    """Make the file's text."""
    found = [f"{json.dumps(name)}: {json.dumps(entry, separators=(',', ':'))}" for name, entry in entries(sorted(LOADED_BY))]
    return "{\n" + ",\n".join(found) + "\n}\n"


def entries(model_types: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the entries of types of models, by type and class."""
    for model_type in model_types:
        classes = sorted(LOADED_BY[model_type])
        flags = {name: values for auto in classes for name, values in _flags(model_type, auto).items()}
        for auto in classes:
            yield f"{model_type} {auto}", entry_of(model_type, auto, flags)


def _kind(model_type: str) -> Any:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return CONFIG_MAPPING[model_type]


def _default(model_type: str) -> dict[str, Any]:
    usual = _kind(model_type)().to_dict() | _UNDECLARED.get(model_type, {})
    return {name: value for name, value in usual.items() if not name.startswith("_")}


def config_of(model_type: str, auto: str, variant: int, flags: Mapping[str, Any]) -> Any:
    """Make a configuration with sizes of its own."""
    usual = _default(model_type)
    given = {name: sizes[variant] for name, sizes in _SIZES.items() if name in usual and name not in _TRIED}
    given |= {"num_labels": _SIZES["num_labels"][variant], "pad_token_id": 0}
    own = next(name for name in ("hidden_size", "n_embd", "d_model", "dim") if name in usual)
    for name, value in flags.items():
        if "==" in name:
            if value:
                given[name.split("==")[0]] = given[own]
        elif name.endswith(">0"):
            field = name.removesuffix(">0")
            if field in _SIZES:
                given[field] = _SIZES[field][variant] if value else (0 if "vocab" in field else -1)
        else:
            given[name] = value
    if model_type == "distilbert" and auto == "AutoModelForQuestionAnswering":
        given["num_labels"] = 2  # it takes no others
    if model_type == "deit":
        given["architectures"] = ["DeiTForImageClassification"]
    return _kind(model_type)(**given)


def model_of(config: Any, auto: str) -> Any:
    """Make a model without memory for its weights."""
    import torch
    import transformers

    with torch.device("meta"):
        return getattr(transformers, auto).from_config(config)


def _names(model_type: str, auto: str, flags: Mapping[str, Any]) -> Any:
    """Return what a choice of flags makes of a model; None where there is no such model."""
    try:
        model = model_of(config_of(model_type, auto, 0, flags), auto)
    except Exception:  # whatever transformers has against the choice
        return None
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}, dict(model.all_tied_weights_keys)


def _flags(model_type: str, auto: str) -> dict[str, list[Any]]:
    """Find the entries of a configuration that change a model's tensors, alone or two together."""
    if model_type in _BY_HAND:
        return {name: list(values) for name, values in _BY_HAND[model_type].items()}
    usual = _default(model_type)
    tried: dict[str, Sequence[Any]] = {
        name: (value, not value) for name, value in usual.items() if isinstance(value, bool) and not _IDLE.match(name)
    }
    tried |= {name: values for name, values in _CHOICES.items() if name in usual}
    tried |= {name: (False, True) for name in _EQUAL if name.split("==")[0] in usual and "hidden_size" in usual}
    tried |= {name: (True, False) for name in _POSITIVE if name.removesuffix(">0") in usual}
    tried.setdefault("tie_word_embeddings", (True, False))
    base = _names(model_type, auto, {})
    assert base is not None, model_type
    alone = {
        (name, index): _names(model_type, auto, {name: value})
        for name, values in tried.items()
        for index, value in enumerate(values)
    }
    found = {name for (name, _index), made in alone.items() if made is not None and made != base}
    fixed = [name for name in _AS_DEFAULT if name.removesuffix(">0") in usual]
    kept = found | {"tie_word_embeddings"}
    kept |= {name for (name, _index), made in alone.items() if made is None}
    return {
        name: [value for index, value in enumerate(tried[name]) if alone[name, index] is not None] for name in sorted(kept)
    } | {name: [False] for name in fixed}


def entry_of(model_type: str, auto: str, flags: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Describe the tensors of one class."""
    usual = _default(model_type)
    combos: list[list[Any]] = []
    tensors: dict[str, list[int]] = defaultdict(list)
    ties: dict[str, list[int]] = defaultdict(list)
    entry: dict[str, Any] = {
        "flags": list(flags),
        "usual": {name: usual.get(name) for name in flags if name in usual},
        "aliases": dict(_kind(model_type).attribute_map),
        "labels": _kind(model_type)().num_labels,
    }
    for choice in itertools.product(*flags.values()):
        chosen = dict(zip(flags, choice, strict=True))
        try:
            configs = [config_of(model_type, auto, variant, chosen) for variant in range(_VARIANTS)]
            models = [model_of(config, auto) for config in configs]
        except Exception:  # whatever transformers has against the choice
            continue
        stated = [_stated(config) for config in configs]
        if not all(_reads(entry, sizes_of(entry, own), own, choice) for own in stated):
            continue
        for one in _described(models, [sizes_of(entry, own) for own in stated], auto):
            tensors[json.dumps(one)].append(len(combos))
        for group in _tied(models[0]):
            ties[json.dumps(group)].append(len(combos))
        combos.append(list(choice))
        entry |= {"prefix": models[0].base_model_prefix} | _conversions(models[0])
    every = list(range(len(combos)))
    return entry | {
        "combos": combos,
        "tensors": [[*json.loads(one), None if when == every else when] for one, when in tensors.items()],
        "ties": [[json.loads(one), None if when == every else when] for one, when in ties.items()],
    }


def _stated(config: Any) -> dict[str, Any]:
    return json.loads(config.to_json_string(use_diff=False))


def _reads(entry: Mapping[str, Any], sizes: Mapping[str, int], own: Mapping[str, Any], choice: Sequence[Any]) -> bool:
    """Return whether the check reads from a configuration what it was made of."""
    return [flag_of(name, entry, sizes, own) for name in entry["flags"]] == list(choice)


def _conversions(model: Any) -> dict[str, Any]:
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming

    renames, converted = [], []
    for own in get_model_conversion_mapping(model):
        if isinstance(own, WeightConverter):
            converted.append(own.compiled_sources.pattern)
        elif type(own) is WeightRenaming and "language_model" not in own.target_patterns[0]:
            assert own.scope_prefix in (None, ""), own
            renames.append([own.compiled_sources.pattern, own.target_patterns[0]])
    return {"renames": renames, "converted": converted}


def _tied(model: Any) -> list[list[str]]:
    groups: dict[str, set[str]] = defaultdict(set)
    for target, source in model.all_tied_weights_keys.items():
        groups[source] |= {target, source}
    return sorted(sorted(own) for own in groups.values())


def _described(models: Sequence[Any], sizes: Sequence[Mapping[str, int]], auto: str) -> list[list[Any]]:
    """Describe tensors: name, dimensions, first layer and number of layers, and whether a checkpoint must have it."""
    shapes = [{name: tuple(value.shape) for name, value in model.state_dict().items()} for model in models]
    lists = _lists(shapes)
    found: dict[str, list[dict[int | None, tuple[int, ...]]]] = {}
    for variant, own in enumerate(shapes):
        for name, shape in own.items():
            template, index = _template(name, lists)
            found.setdefault(template, [{} for _ in models])[variant][index] = shape
    ignored = models[0]._keys_to_ignore_on_load_missing or ()
    described = []
    for template, variants in found.items():
        span = _span(variants, sizes)
        if span is False:
            continue
        shown = template.replace("{}", "0")
        needed = not any(re.search(own, shown) for own in ignored) and not (auto == "AutoModel" and "pooler" in shown)
        described.append([template, _dimensions(variants, sizes), span, needed])
    return described


def _lists(shapes: Sequence[Mapping[str, Any]]) -> set[str]:
    """Find the beginnings of names that a layer's number follows: those with another number of layers in each variant."""
    counts: dict[str, list[set[int]]] = {}
    for variant, own in enumerate(shapes):
        for name in own:
            for part in re.finditer(r"(?<=\.)\d+(?=\.)", name):
                counts.setdefault(name[: part.start()], [set() for _ in shapes])[variant].add(int(part.group()))
    return {start for start, own in counts.items() if len({len(indices) for indices in own}) > 1 and all(own)}


def _template(name: str, lists: set[str]) -> tuple[str, int | None]:
    for part in re.finditer(r"(?<=\.)\d+(?=\.)", name):
        if name[: part.start()] in lists:
            return f"{name[: part.start()]}{{}}{name[part.end() :]}", int(part.group())
    return name, None


def _span(variants: Sequence[Mapping[int | None, Any]], sizes: Sequence[Mapping[str, int]]) -> Any:
    """Return the first layer and the size that is the number of layers; None of no layer's, False where neither fits."""
    if all(list(own) == [None] for own in variants):
        return None
    indices = [sorted(own) for own in variants]
    first = {own[0] if own else None for own in indices}
    if len(first) != 1 or None in first or any(own != list(range(own[0], own[-1] + 1)) for own in indices):
        return False
    ends = [own[-1] + 1 for own in indices]
    if len(set(ends)) == 1:
        return [indices[0][0], ends[0]]
    end = next((name for name in sorted(sizes[0]) if [own.get(name) for own in sizes] == ends), None)
    return False if end is None else [indices[0][0], end]


def _dimensions(variants: Sequence[Mapping[int | None, tuple[int, ...]]], sizes: Sequence[Mapping[str, int]]) -> Any:
    """Write each dimension as a function of sizes; None for those that are none."""
    first = [set(own.values()) for own in variants]
    if any(len(own) != 1 for own in first):  # layers differ
        return None
    shapes = [next(iter(own)) for own in first]
    if len({len(shape) for shape in shapes}) != 1:
        return None
    return [_function(values, sizes) for values in zip(*shapes, strict=True)]


def _function(values: Sequence[int], sizes: Sequence[Mapping[str, int]]) -> Any:
    """Return [sum of what is added, factor, size, ...]; or a constant, or None."""
    if len(set(values)) == 1:
        return values[0] if values[0] <= _LESS_IS_MORE else None
    names = [name for name in sorted(sizes[0], key=_preference) if len({own.get(name) for own in sizes}) > 1]
    alone, pairs = [(name,) for name in names], list(itertools.combinations(names, 2))
    for factor, added, tried in (
        (1, 0, alone),
        (1, 0, pairs),
        (2, 0, alone + pairs),
        (3, 0, alone),
        (1, 1, alone),
        (1, 2, alone),
    ):
        for parts in tried:
            if [_product(own, parts) * factor + added for own in sizes] == list(values):
                return [added, factor, *parts]
    return None


def _product(sizes: Mapping[str, int], parts: Sequence[str]) -> int:
    product = 1
    for name in parts:
        product *= sizes.get(name, 0)
    return product


def _preference(name: str) -> tuple[int, str]:
    order = list(_SIZES)
    return order.index(name) if name in order else len(order), name


if __name__ == "__main__":
    PLACE.write_text(text(), encoding="utf-8")
