"""Normal forms of written files for `benchmarks.same`: all that two runs of the same code must agree in.

Weights, configs, tokenizers and loaders stay as they are, byte for byte. Reports hold times, which differ between runs. Each
time is named here, as a path of JSON and as the place where a page or a card shows it; `RULES` describes them for readers.
Everything that is not named is compared.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMED = "<timed>"
_PACKAGES = "pruning_core|coppice|app|worker"
_CHECKPOINT = (
    *(f"{where}.{name}" for where in ("latency_ms", "acceptance.latency_ms") for name in ("dense", "pruned", "speedup")),
    *(f"{where}.{name}" for where in ("latency_ms", "acceptance.latency_ms") for name in ("dense_iqr", "pruned_iqr")),
    *(f"{where}.interval.{name}" for where in ("latency_ms", "acceptance.latency_ms") for name in ("low", "high")),
    "onnx.latency_ms",
    "onnx.latency_iqr",
    "training.phases.*.seconds",
    "pattern.products.groups.*.dense",
    "pattern.products.groups.*.fastest",
    "pattern.products.groups.*.forms.*.ms",
)
# Values of 0.0 and null are compared: a stage that did not run has taken 0.0 s.
_RUN = ("seconds.total", "seconds.by_stage.*", "peak_memory_bytes", "memory.free_bytes", "versions.coppice")
_REPORT = (*_RUN, *_CHECKPOINT, *(f"frontier.*.{path}" for path in _CHECKPOINT))
# The sentence on sparse products names the best form and its ratio, and which of the two sentences is used depends on them.
_PRODUCTS = (
    r"(?:all matrices run dense: the best sparse product \(|\d+ of \d+ matrices multiply faster in sparse form \()"
    r'[^<"\n]*?(?:dense one on cpu \([^)]*\)|run_sparse_ is called)'
)
_WARNINGS = ((r"\(measured [\d.]+x on cpu\)", "(measured <timed>x on cpu)"), (_PRODUCTS, "<timed sparse products>"))
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_CARD = ((r"(?m)^(\| latency, ms \([^|]*\) \|) [\d.]+ \| [\d.]+ \| [\d.]+x as fast[^|]*\|$", r"\1 <timed> |"), *_WARNINGS)
_PAGE = (
    (r"<b>[\d.]+\u00d7</b><span>as fast</span><small>[\d.]+ → [\d.]+ ms</small>", "<timed headline>"),
    (r"(<tr><th>(?:latency, ms|its interquartile range)</th>)<td>[\d.]+</td><td>[\d.]+</td>", r"\1<timed>"),
    (r"(<td>[\d.]+%</td><td>[\d.]+</td>)<td>[\d.]+\u00d7</td>", r"\1<timed>"),  # the frontier's speed-ups
    (r"between [\d.]+ and [\d.]+ \(\d+ %", "between <timed>"),
    (r"(<td>\d+ steps), [\d.]+ s</td>", r"\1, <timed>"),
    (r"<td>[\d.]+ [MG]B, [\d.]+ ms in onnxruntime", "<td><timed> in onnxruntime"),
    (r"[\d.]+ s in all, peak memory [\d.]+ [MG]B", "<timed> s in all, peak memory <timed>"),
    (r"(<tr><th>coppice</th>)<td>[^<]*</td>", r"\1<timed>"),
    (r'<svg [^>]*aria-label="Seconds by stage.*?</svg>', "<timed stages>"),
    *_WARNINGS,
)
_COMPARISON = re.compile(r'<svg [^>]*aria-label="Bars of pruned against dense.*?</svg>', re.DOTALL)
_LATENCY = ((r"Latency [\d.]+ → [\d.]+ ms", "Latency <timed>"), (r">[\d.]+ → [\d.]+ ms</text>", "><timed></text>"))
_BAR = re.compile(
    r'<path d="M 0 ([\d.]+) L [\d.]+ \1 L [\d.]+ ([\d.]+) L 0 \2 z " (clip-path="[^"]*" style="fill: var\(--accent\)")'
)

RULES = {
    "report.json": f"these values, unless 0.0 or null: {', '.join(_RUN)}; and of each checkpoint: {', '.join(_CHECKPOINT)}",
    "report.json, warnings": "the ratio in 'measured Nx on cpu', and the sentence on sparse products, which depends on times",
    "report.json, as text": "besides its values, the text without numbers is compared byte by byte (order, spacing, quotes)",
    "report.html": "headline and interval of the speed-up; rows latency and interquartile range; speed-ups of the frontier; "
    "seconds of training phases; bar and text of latency in the comparison; the whole chart of stages; time and peak memory; "
    "size and time of the ONNX graph; version of coppice; warnings as above",
    "README.md": "the row latency; warnings as above",
    "manifest.json": "each size and sha256 is checked against the file that it names; the files themselves are compared",
    "model.onnx": "in the metadata of nodes: the stack frames in our code, and the name of our class around the model. The "
    "size depends on them (onnx.bytes of report.json, which is checked against the file)",
    "everywhere": "the paths of our packages, of the inputs and of the bundle, which are others in each run; "
    "versions.coppice is that of the installed package, not of the tree",
}


@dataclass(frozen=True)
class Places:
    """Folders of a run whose paths may occur in the files that it wrote."""

    tree: str
    inputs: str
    out: str

    def hide(self, text: str) -> str:
        """Replace the paths of the folders by their names, such as ``<out>``."""
        for name, path in (("out", self.out), ("inputs", self.inputs)):
            text = text.replace(path, f"<{name}>")
        # Only our packages in the tree: an environment with other libraries may lie in it too.
        return re.sub(rf"{re.escape(self.tree)}(?=/(?:{_PACKAGES})/)", "<tree>", text)


@dataclass(frozen=True)
class Form:
    """The normal form of a file.

    Attributes:
        digest: Digest of the normal form.
        text: Its text, to show differences; None if there is none.
        values: Its values, to show differences; None for all files but JSON reports.
    """

    digest: str
    text: str | None = None
    values: Any = None


def normal_form(bundle: Path, path: Path, places: Places) -> Form:
    """Return the normal form of one file of a bundle."""
    make: dict[str, Callable[[Path, Path, Places], Form]] = {
        "report.json": _report,
        "report.html": _page,
        "README.md": _card,
        "manifest.json": _manifest,
        "model.onnx": _onnx,
    }
    return make.get(path.name, _bytes)(bundle, path, places)


def _bytes(_bundle: Path, path: Path, _places: Places) -> Form:
    content = path.read_bytes()
    text = None if path.suffix == ".safetensors" else content.decode("utf-8", errors="replace")
    return Form(hashlib.sha256(content).hexdigest(), text)


def _of_text(text: str, values: Any = None) -> Form:
    return Form(hashlib.sha256(text.encode()).hexdigest(), text, values)


def _report(_bundle: Path, path: Path, places: Places) -> Form:
    raw = places.hide(path.read_text(encoding="utf-8"))
    values = json.loads(raw)
    for own in (values, *values.get("frontier", ())):
        size = path.parent / own.get("path", ".") / "onnx" / "model.onnx"
        if (own.get("onnx") or {}).get("bytes") is not None:
            own["onnx"]["bytes"] = "as written" if own["onnx"]["bytes"] == size.stat().st_size else "WRONG"
    for rule in _REPORT:
        _hide_(values, rule.split("."))
    values["warnings"] = [_replaced(said, _WARNINGS) for said in values.get("warnings", ())]
    shape = re.sub(r'("fastest": )"[^"]*"', r"\1<timed>", _replaced(raw, _WARNINGS))
    shape = hashlib.sha256(_NUMBER.sub("N", shape).encode()).hexdigest()
    return _of_text(json.dumps(values | {"text without its numbers": shape}, indent=1, ensure_ascii=False), values)


def _hide_(values: Any, path: list[str]) -> None:
    """Replace in place all values that a path leads to, except 0.0 and null. An asterisk stands for every key or index."""
    key, rest = path[0], path[1:]
    if isinstance(values, list):
        keys: list[Any] = list(range(len(values))) if key == "*" else []
    else:
        keys = [] if not isinstance(values, dict) else list(values) if key == "*" else [key] if key in values else []
    for own in keys:
        if rest:
            _hide_(values[own], rest)
        elif values[own] is not None and values[own] != 0.0:
            values[own] = TIMED


def _replaced(text: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, instead in rules:
        text = re.sub(pattern, instead, text, flags=re.DOTALL)
    return text


def _card(_bundle: Path, path: Path, places: Places) -> Form:
    return _of_text(_replaced(places.hide(path.read_text(encoding="utf-8")), _CARD))


def _page(_bundle: Path, path: Path, places: Places) -> Form:
    page = _COMPARISON.sub(lambda found: _without_latency(found[0]), places.hide(path.read_text(encoding="utf-8")))
    return _of_text(_replaced(page, _PAGE))


def _without_latency(chart: str) -> str:
    """Hide the bar of latency, which is the last bar, and its text."""
    bars = list(_BAR.finditer(chart))
    if bars:
        start, end = bars[-1].span()
        chart = f'{chart[:start]}<path d="<timed>" {bars[-1][3]}{chart[end:]}'
    return _replaced(chart, _LATENCY)


def _manifest(bundle: Path, path: Path, _places: Places) -> Form:
    raw = path.read_text(encoding="utf-8")
    values = json.loads(raw)
    spaced = raw == json.dumps(values, indent=2, sort_keys=True) + "\n"
    for name, entry in values["files"].items():
        content = (bundle / name).read_bytes() if (bundle / name).is_file() else b""
        right = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        values["files"][name] = "as written" if entry == right else f"WRONG: {entry}"
    return _of_text(json.dumps(values | {"two spaces, sorted": spaced}, indent=1), values)


def _onnx(_bundle: Path, path: Path, places: Places) -> Form:
    import onnx

    model = onnx.load(path)
    graphs = [model.graph, *model.functions]
    for node in (node for graph in graphs for node in graph.node):
        for entry in node.metadata_props:
            if entry.key == "pkg.torch.onnx.stack_trace":
                entry.value = re.sub(r'(?m)^ *File "<tree>/[^\n]*\n[^\n]*$\n?', "", places.hide(entry.value))
            elif entry.key in ("namespace", "pkg.torch.onnx.class_hierarchy"):
                entry.value = re.sub(rf"\b(?:{_PACKAGES})\.[\w.]+", "<wrapper>", entry.value)
    told = [f"node {node}" for graph in graphs for node in graph.node]
    told += [f"initializer {own.name} {hashlib.sha256(own.SerializeToString()).hexdigest()}" for own in model.graph.initializer]
    return Form(hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest(), "\n".join(told))
