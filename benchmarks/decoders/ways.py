"""Ways to prune a decoder: jobs of the core, peers written from their papers, and peers that are packages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.decoders.case import Case
from benchmarks.decoders.peers import flap, shortgpt, slicegpt, two_ssp
from benchmarks.decoders.peers.slicegpt import Sliced
from benchmarks.decoders.peers.structure import Structure

DEFAULT = "fisher-cg"
# Shares of the multiply-accumulates in the order in which they are run, and patterns of zeros.
KEEPS, PATTERNS = ("0.8", "0.7", "0.9", "0.5"), ("2:4", "50%")
SETTINGS = (KEEPS[0], *PATTERNS, *KEEPS[1:])

_NOTHING = {"recovery": {"kind": "none"}}
_SERVE = {"artifacts": {"layout": "serve", "engines": ["vllm"]}}


@dataclass(frozen=True, slots=True)
class Core:
    """A job of the core.

    Attributes:
        method: The spec's method.
        fields: Other fields of the spec.
    """

    method: dict[str, Any]
    fields: dict[str, Any]

    def spec_fields(self, setting: str) -> dict[str, Any]:
        """Return the fields of the spec at a setting."""
        if setting in PATTERNS:
            method = {**self.method, "pattern": setting if setting != "50%" else "unstructured"}
            target = {} if setting != "50%" else {"sparsity": 0.5}
            return {**self.fields, **target, "method": method}
        if self.method["name"] == "block-lasso":
            return {**self.fields, "method": self.method, "sparsity": round(1 - float(setting), 6)}
        return {**self.fields, "method": self.method, "target": {"metric": "macs", "keep": float(setting)}}


@dataclass(frozen=True, slots=True)
class Peer:
    """A structured peer.

    Attributes:
        choose: Decides for a share of the multiply-accumulates, and tells the seconds of statistics that shares have in common.
        repair: Whether the core's repair follows.
    """

    choose: Callable[[Case, float], tuple[Structure | Sliced, float]]
    repair: bool


@dataclass(frozen=True, slots=True)
class Package:
    """A peer that is a package, in an environment of its own.

    Attributes:
        script: Script in `benchmarks/decoders/elsewhere`.
        settings: Those that it can be run at.
        options: Its options beside model, texts and share.
    """

    script: str
    settings: tuple[str, ...]
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dense:
    """Nothing is pruned."""


Way = Core | Peer | Package | Dense


def _core(name: str, *more: dict[str, Any], **options: Any) -> Core:
    fields: dict[str, Any] = {}
    for own in more:
        fields |= own
    return Core({"name": name, **options}, fields)


_PEERS: dict[str, Callable[[Case, float], tuple[Any, float]]] = {
    "FLAP": flap.choose,
    "SliceGPT": slicegpt.choose,
    "2SSP": two_ssp.choose,
    "ShortGPT": shortgpt.choose,
}
# With widths: at shares of the multiply-accumulates (block-lasso: of the weights that are not zero).
STRUCTURED: dict[str, Way] = {
    **{name: Peer(choose, repair=False) for name, choose in _PEERS.items()},
    **{f"{name}, our repair": Peer(choose, repair=True) for name, choose in _PEERS.items()},
    "magnitude": _core("magnitude", _NOTHING),
    "magnitude, our repair": _core("magnitude"),
    DEFAULT: _core("fisher-cg"),
    "fisher-cg, no repair": _core("fisher-cg", _NOTHING),
    "fisher-cg, priced together": _core("fisher-cg", interactions="kronecker"),
    "fisher-cg, paper": _core("fisher-cg", preset="paper"),
    "fisher-cg, serve": _core("fisher-cg", _SERVE),
    "fisher-cg, serve, no repair": _core("fisher-cg", _SERVE, _NOTHING),
    "block-lasso": _core("block-lasso"),
    "block-lasso, no repair": _core("block-lasso", _NOTHING),
    "block-lasso, serve": _core("block-lasso", _SERVE),
    "torch-pruning: magnitude": Package("torch_pruning_llama.py", KEEPS, ("--importance", "magnitude")),
    "torch-pruning: Taylor": Package("torch_pruning_llama.py", KEEPS, ("--importance", "taylor")),
}
# With zeros in matrices whose shapes stay.
ZEROING: dict[str, Way] = {
    "admm-pattern": _core("admm-pattern"),
    "admm-pattern, no repair": _core("admm-pattern", _NOTHING),
    "admm-pattern, serve": _core("admm-pattern", _SERVE),
    "Wanda": _core("admm-pattern", _NOTHING, selection="wanda"),
    "Wanda, our refit": _core("admm-pattern", selection="wanda"),
    "SparseGPT": _core("admm-pattern", _NOTHING, selection="sparsegpt"),
    "SparseGPT, our refit": _core("admm-pattern", selection="sparsegpt"),
    "magnitude": _core("admm-pattern", _NOTHING, selection="magnitude"),
    "magnitude, our refit": _core("admm-pattern", selection="magnitude"),
    "llmcompressor: SparseGPT": Package("llmcompressor_pattern.py", ("2:4",), ("--modifier", "sparsegpt")),
    "llmcompressor: Wanda": Package("llmcompressor_pattern.py", ("2:4",), ("--modifier", "wanda")),
    "modelopt: SparseGPT": Package("modelopt_pattern.py", ("2:4",)),
}


def ways_at(setting: str) -> dict[str, Way]:
    """Return the ways that a setting has, by name."""
    own = ZEROING if setting in PATTERNS else STRUCTURED
    return {name: way for name, way in own.items() if not isinstance(way, Package) or setting in way.settings}
