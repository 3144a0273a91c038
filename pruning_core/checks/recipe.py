"""What sentence-transformers' files say of a model: how token states become the embedding that its users get. Torch-free.

`encode` runs the modules that ``modules.json`` lists, one after the other. Those that are known here are read into a `Recipe`,
which the job makes the same modules of; a model with any other is refused by name, since its embeddings would not be judged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn, cast

from pruning_core.checks.module_settings import MODULE_KEYS, odd_modules, odd_settings, shown
from pruning_core.errors import ModelUnreadable
from pruning_core.files.model_json import read_document, read_object

MODULES = "modules.json"
SETTINGS = "config_sentence_transformers.json"
POOLING_FOLDER = "1_Pooling"
# The names of poolings, in the order in which several are joined, by the keys that stood for them before version 5.2.
POOLINGS: Mapping[str, str] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# Functions behind a Dense's layer, all of torch.nn. sentence-transformers would import whatever name of torch stands there.
ACTIVATIONS = frozenset(
    {"Tanh", "Identity", "ReLU", "GELU", "SiLU", "Sigmoid", "LeakyReLU", "ELU", "SELU", "Mish", "Softplus", "Softsign", "ReLU6"}
)
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]

_KNOWN = frozenset({"Transformer", "Pooling", "Dense", "LayerNorm", "Normalize", "Dropout"})
_CLASS = re.compile(
    r"sentence_transformers\.(models|base\.modules|sentence_transformer\.modules)(\.[a-z_]\w{0,63}|\.[A-Z]\w{0,63})?\.(?P<name>[A-Z]\w{0,63})",
    re.ASCII,
)
_FOLDER = re.compile(r"\w[\w.\-]{0,63}", re.ASCII)
_ACTIVATION = re.compile(r"torch\.nn(\.modules\.(activation|linear))?\.(?P<name>\w{1,32})", re.ASCII)
# In the order in which sentence-transformers looks for the settings of the first module.
_TRANSFORMER_SETTINGS = tuple(
    f"sentence_{name}_config.json" for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_EMBEDDING = "sentence_embedding"
_LARGEST_BYTES = 8 * 2**20
_MOST_MODULES = 32
_LONGEST_PROMPT = 100_000
_LARGEST_WIDTH = 2**20


@dataclass(frozen=True, slots=True)
class PoolingStep:
    """Token states become one vector; several poolings are joined."""

    folder: str
    modes: tuple[str, ...]
    width: int | None = None
    include_prompt: bool = True


@dataclass(frozen=True, slots=True)
class DenseStep:
    """A linear layer, a function and, where wanted, the input once more."""

    folder: str
    width_in: int
    width_out: int
    bias: bool
    activation: str
    residual: bool


@dataclass(frozen=True, slots=True)
class NormStep:
    """A layer norm."""

    folder: str
    width: int


@dataclass(frozen=True, slots=True)
class UnitStep:
    """Scaling to unit length."""

    folder: str


Step = PoolingStep | DenseStep | NormStep | UnitStep


@dataclass(frozen=True, slots=True)
class Recipe:
    """How `encode` makes an embedding of a text.

    Attributes:
        steps: The modules behind the Transformer.
        own: Whether the model has a ``modules.json``.
        prompt: The text that is put in front of every text.
        prompt_name: Name of the prompt; empty where there is none.
        other_prompts: Names of further prompts, which users must ask for.
        most_tokens: Longest text in tokens; None: as the tokenizer and the model's positions say.
        lower_case: Whether texts are put in lower case first.
        padding_side: The side on which users' texts are padded; None: as the tokenizer says. Embeddings do not depend on it.
        similarity: How two embeddings are compared.
        first_values: Number of values that are kept of an embedding; None: all.
    """

    steps: tuple[Step, ...]
    own: bool
    prompt: str = ""
    prompt_name: str = ""
    other_prompts: tuple[str, ...] = ()
    most_tokens: int | None = None
    lower_case: bool = False
    padding_side: Literal["left", "right"] | None = None
    similarity: Similarity = "cosine"
    first_values: int | None = None


def read_recipe(folder: Path) -> Recipe:
    """Read how a model's embeddings are made; without ``modules.json``, the mean of the token states, in unit length.

    Raises:
        ModelUnreadable: A file is broken, or there is a module or a setting that is not known here.
    """
    listed = read_document(folder, MODULES, most_bytes=_LARGEST_BYTES)
    if listed is None:
        pooling = _pooling(folder, POOLING_FOLDER) if (folder / POOLING_FOLDER / "config.json").is_file() else None
        return Recipe((pooling or PoolingStep(POOLING_FOLDER, ("mean",)), UnitStep("2_Normalize")), own=False)
    steps = _steps(folder, listed)
    settings = _Settings(folder)
    return Recipe(
        steps,
        own=True,
        prompt=settings.prompts[settings.default] if settings.default else "",
        prompt_name=settings.default,
        other_prompts=tuple(name for name, text in settings.prompts.items() if text and name != settings.default),
        most_tokens=settings.most_tokens,
        lower_case=settings.lower_case,
        padding_side=settings.padding_side,
        similarity=settings.similarity,
        first_values=settings.first_values,
    )


def _steps(folder: Path, listed: object) -> tuple[Step, ...]:
    if not isinstance(listed, list) or not 2 <= len(cast("list[object]", listed)) <= _MOST_MODULES:
        refuse(MODULES, "must list a Transformer, a Pooling, and what follows them")
    for why in odd_modules(cast("list[object]", listed)):
        refuse(MODULES, why)
    named = [_named(entry) for entry in cast("list[object]", listed)]
    kinds = [kind for kind, _ in named if kind != "Dropout"]
    if kinds[0] != "Transformer" or kinds.count("Transformer") > 1 or kinds[1:2] != ["Pooling"] or kinds.count("Pooling") > 1:
        refuse(MODULES, f"lists {', '.join(kinds)}; what is known here is a Transformer, a Pooling and what follows them")
    if named[0][1]:
        refuse(
            MODULES,
            f"keeps the Transformer in a folder of its own ({named[0][1]}); load it by sentence-transformers and save it "
            "again, which puts it beside modules.json",
        )
    found: list[Step] = []
    for kind, own in named[1:]:
        match kind:
            case "Pooling":
                found.append(_pooling(folder, own))
            case "Dense":
                found.append(_dense(folder, own))
            case "LayerNorm":
                found.append(_norm(folder, own))
            case "Normalize":
                _check_names(f"{own}/config.json", _entries(folder, f"{own}/config.json", needed=False))
                found.append(UnitStep(own))
            case _:  # a dropout, which does nothing outside training
                _check_dropout(folder, own)
    for step in found:
        if isinstance(step, PoolingStep) and step.width is None:
            refuse(f"{step.folder}/config.json", "must have word_embedding_dimension; sentence-transformers needs it")
    return tuple(found)


def _named(entry: object) -> tuple[str, str]:
    """Return the kind of a module and its folder."""
    entries = cast("dict[str, object]", entry) if isinstance(entry, dict) else {}
    named, place = entries.get("type"), entries.get("path", "")
    found = _CLASS.fullmatch(named) if isinstance(named, str) else None
    if found is None or found["name"] not in _KNOWN:
        refuse(
            MODULES,
            f"lists the module {shown(named)}, whose embeddings cannot be computed here; known are {', '.join(sorted(_KNOWN))} "
            "of sentence_transformers",
        )
    kind = found["name"]
    if not isinstance(place, str) or not (_FOLDER.fullmatch(place) or (kind == "Transformer" and not place)):
        refuse(MODULES, f"must name the folder of its {kind} by path, beside the weights")
    return kind, place


def _pooling(folder: Path, own: str) -> PoolingStep:
    name = f"{own}/config.json"
    entries = _entries(folder, name)
    unknown = (
        entries.keys() - POOLINGS.keys() - {"word_embedding_dimension", "embedding_dimension", "pooling_mode", "include_prompt"}
    )
    if unknown:
        refuse(name, f"has a setting that sentence-transformers does not know ({shown(min(unknown))})")
    given = entries.get("pooling_mode")
    if given is None:
        given = [mode for key, mode in POOLINGS.items() if entries.get(key)] or ["mean"]
    modes = tuple(cast("list[object]", given)) if isinstance(given, list) else (given,)
    known = tuple(mode for mode in modes if isinstance(mode, str) and mode in POOLINGS.values())
    if len(known) != len(modes) or not modes:
        refuse(name, f"has the pooling_mode {shown(given)}; known are {', '.join(POOLINGS.values())}, alone or in a list")
    width = entries.get("embedding_dimension", entries.get("word_embedding_dimension"))
    return PoolingStep(
        own, known, width if isinstance(width, int) else None, _switch(name, entries, "include_prompt", usual=True)
    )


def _dense(folder: Path, own: str) -> DenseStep:
    name = f"{own}/config.json"
    entries = _entries(folder, name)
    _check_names(name, entries)
    function = entries.get("activation_function", "torch.nn.modules.activation.Tanh")
    found = _ACTIVATION.fullmatch(function) if isinstance(function, str) else None
    if found is None or found["name"] not in ACTIVATIONS:
        refuse(name, f"has the activation_function {shown(function)}; known are {', '.join(sorted(ACTIVATIONS))} of torch.nn")
    return DenseStep(
        own,
        _width(name, entries, "in_features"),
        _width(name, entries, "out_features"),
        bias=_switch(name, entries, "bias", usual=True),
        activation=found["name"],
        residual=_switch(name, entries, "use_residual", usual=False),
    )


def _norm(folder: Path, own: str) -> NormStep:
    name = f"{own}/config.json"
    entries = _entries(folder, name)
    _check_keys(name, entries, "LayerNorm")
    return NormStep(own, _width(name, entries, "dimension"))


def _check_dropout(folder: Path, own: str) -> None:
    name = f"{own}/config.json"
    entries = _entries(folder, name, needed=False)
    _check_keys(name, entries, "Dropout")
    share = entries.get("dropout", 0.0)
    if type(share) not in (int, float) or not 0 <= share <= 1:
        refuse(name, f"has the dropout {shown(share)}; it is a number from 0 to 1")


def _check_keys(name: str, entries: Mapping[str, object], kind: str) -> None:
    unknown = entries.keys() - MODULE_KEYS[kind]
    if unknown:
        refuse(name, f"has a setting that sentence-transformers does not know ({shown(min(unknown))})")


def _switch(name: str, entries: Mapping[str, object], key: str, *, usual: bool) -> bool:
    found = entries.get(key, usual)
    if not isinstance(found, bool):
        refuse(name, f"has the {key} {shown(found)}; it is true or false")
    return found


def _check_names(name: str, entries: Mapping[str, object]) -> None:
    """Refuse a module that reads or writes anything but the embedding."""
    for key in ("module_input_name", "module_output_name"):
        if entries.get(key) not in (None, _EMBEDDING):
            refuse(name, f"has the {key} {shown(entries[key])}; only {_EMBEDDING} is known here")


def _width(name: str, entries: Mapping[str, object], key: str) -> int:
    found = entries.get(key)
    if not isinstance(found, int) or isinstance(found, bool) or not 1 <= found <= _LARGEST_WIDTH:
        refuse(name, f"must state {key}, a whole number from 1 to {_LARGEST_WIDTH}")
    return found


@dataclass(slots=True)
class _Settings:
    """The settings of a model, read from its files as sentence-transformers does."""

    folder: Path
    prompts: dict[str, str] = field(default_factory=dict[str, str])
    default: str = ""
    similarity: Similarity = "cosine"
    first_values: int | None = None
    most_tokens: int | None = None
    lower_case: bool = False
    padding_side: Literal["left", "right"] | None = None

    def __post_init__(self) -> None:
        self._read_shared()
        found = ((name, _entries(self.folder, name, needed=False)) for name in _TRANSFORMER_SETTINGS)
        name, entries = next((own for own in found if own[1]), ("", {}))
        if entries:
            self._read_first(name, entries)

    def _read_shared(self) -> None:
        entries = _entries(self.folder, SETTINGS, needed=False)
        kind = entries.get("model_type", "SentenceTransformer")
        if kind != "SentenceTransformer":
            refuse(SETTINGS, f"says that the model is a {shown(kind)}, which gives no single embedding of a text")
        prompts = entries.get("prompts") or {}
        named = cast("dict[str, object]", prompts) if isinstance(prompts, dict) else None
        if named is None or not all(text is None or isinstance(text, str) for text in named.values()):
            refuse(SETTINGS, "must have an object of texts as prompts")
        self.prompts = {"query": "", "document": ""} | {key: str(text or "") for key, text in named.items()}
        default = entries.get("default_prompt_name")
        if default is not None and (not isinstance(default, str) or default not in self.prompts):
            refuse(SETTINGS, f"names the default prompt {shown(default)}, which is none of its prompts")
        self.default = default or ""
        if self.default and len(self.prompts[self.default]) > _LONGEST_PROMPT:
            refuse(SETTINGS, f"has a default prompt of more than {_LONGEST_PROMPT} characters")
        similarity = entries.get("similarity_fn_name")
        if similarity in SIMILARITIES:  # others are left unread by sentence-transformers, too
            self.similarity = similarity
        cut = entries.get("truncate_dim")
        if cut is not None:
            self.first_values = _width(SETTINGS, entries, "truncate_dim")

    def _read_first(self, name: str, entries: Mapping[str, Any]) -> None:
        for why in odd_settings(entries):
            refuse(name, why)
        for key in ("tokenizer_args", "processor_kwargs"):
            self.padding_side = entries.get(key, {}).get("padding_side") or self.padding_side
        self.most_tokens = entries.get("max_seq_length")
        self.lower_case = entries.get("do_lower_case", False) is True


def _entries(folder: Path, name: str, *, needed: bool = True) -> dict[str, Any]:
    found = read_object(folder, name, most_bytes=_LARGEST_BYTES)
    if found is None and needed:
        refuse(name, "is missing")
    return found or {}


def refuse(name: str, why: str) -> NoReturn:
    """Raise the error about a file of the model; the reason ends a sentence that begins with the file's name."""
    raise ModelUnreadable(f"{name} {why}", param="model") from None
