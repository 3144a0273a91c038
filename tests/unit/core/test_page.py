"""The report page and the model card: complete, self-contained, and safe to open."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from pruning_core.artifacts.card import base_licence, model_card
from pruning_core.artifacts.page import render_page
from pruning_core.report.report import Report
from pruning_core.spec.prune import PruneSpec
from tests.unit.app.sample import REPORT

_VOID = {"meta", "br", "link", "img", "hr", "path", "use", "rect"}


class _Reader(HTMLParser):
    """Collects tags and text, and sees that what is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in _VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data


def _spec(**changes):
    return PruneSpec.model_validate({"model": "org/name", "task": "glue/sst2", "sparsity": 0.5} | changes)


def _report(**changes):
    return Report.model_validate(REPORT | changes)


def _read(page):
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def _layers(count, **ffn):
    layer = REPORT["layers"][0]
    return [layer | {"layer": i, "ffn": layer["ffn"] | ffn} for i in range(count)]


def test_the_page_says_what_people_came_for():
    text = _read(render_page(_spec(), _report())).text
    for expected in (
        "org/name",
        "2.00×",
        "as fast",
        "75%",
        "of the size",
        "98.9%",
        "0.9000 → 0.8900",
        "8 × 128 tokens, 1 thread, cpu, float32",
    ):
        assert expected in text


def test_the_page_needs_nothing_from_elsewhere():
    page = render_page(_spec(), _report())
    reader = _read(page)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in reader.tags}
    assert not [attributes for _, attributes in reader.tags if {"src", "href", "onload"} & set(attributes)]
    assert not re.search(r"url\((?!#)|@import", page)


def test_charts_follow_the_pages_colours():
    page = render_page(_spec(), _report())
    charts = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(charts) == 4
    for chart in charts:
        assert "var(--accent)" in chart
        assert not re.search(r"#[0-9a-f]{6}\b(?!\))", re.sub(r'(xlink:)?href="[^"]*"|url\([^)]*\)', "", chart))
        assert 'role="img"' in chart


def test_names_cannot_run_code():
    page = render_page(_spec(), _report(model="<script>alert(1)</script>", task='"><img src=x onerror=alert(1)>'))
    assert not {"script", "img"} & {tag for tag, _ in _read(page).tags}


def test_a_path_is_shown_by_its_last_part_only():
    assert "/srv" not in render_page(_spec(), _report(model="/srv/secret/minilm"))


def test_the_same_report_gives_the_same_page():
    assert render_page(_spec(), _report()) == render_page(_spec(), _report())


def test_several_budgets_get_a_frontier():
    outcome = {
        name: REPORT[name] for name in ("target", "sparsity", "macs", "parameters", "bytes", "quality", "latency_ms", "layers")
    }
    points = [outcome | {"path": "."}, outcome | {"path": "macs-0.3", "macs": {"dense": 100, "pruned": 30}}]
    text = _read(render_page(_spec(), _report(frontier=points))).text
    assert "Frontier" in text
    assert "macs-0.3" in text
    assert "Frontier" not in _read(render_page(_spec(), _report())).text


def test_iterations_are_drawn_where_there_are_any():
    assert "Solver iterations" not in render_page(_spec(), _report())
    assert "Solver iterations" in render_page(_spec(), _report(layers=_layers(2, solver="pcg", iterations=31)))


def test_layers_that_are_gone_and_repairs_that_failed_are_shown():
    gone = _layers(30, status="rejected", residual_after=0.3)
    gone[3] |= {"kept_heads": 0, "head_indices": [], "kept_neurons": 0}
    nothing = {"solver": "none", "status": "skipped", "iterations": 0}
    text = _read(render_page(_spec(), _report(layers=gone, warnings=["layer 3 is gone"]))).text
    assert "rejected" in text
    assert "layer 3 is gone" in text
    unrepaired = _report(recovery="none", layers=[REPORT["layers"][0] | {"attention": nothing, "ffn": nothing}])
    assert "Nothing was repaired" in _read(render_page(_spec(), unrepaired)).text


def _metadata(card):
    return yaml.safe_load(card.split("---")[1])


def test_the_card_has_the_hubs_metadata():
    found = _metadata(model_card(_spec(), _report(), licence="apache-2.0"))
    assert (found["license"], found["pipeline_tag"], found["base_model"]) == ("apache-2.0", "text-classification", "org/name")
    assert found["model-index"][0]["results"][0]["metrics"] == [{"type": "accuracy", "value": 0.89}]
    assert {"pruned", "coppice", "fisher-cg"} <= set(found["tags"])


def test_the_card_of_a_local_model_tells_no_folder():
    card = model_card(_spec(model="/srv/secret/minilm", data="/srv/secret/sst2"), _report())
    assert "/srv" not in card
    assert "base_model" not in _metadata(card)
    assert "license" not in _metadata(card)
    assert "does not state one" in card


def test_card_and_page_say_what_loading_takes_and_which_type_was_measured():
    for layout, needs, other in (
        ("per_layer", "with one import of Coppice", "with nothing of Coppice"),
        ("stock", "with nothing of Coppice", "with one import"),
    ):
        report = _report(layout=layout, stored_dtype="float16")
        for text in (model_card(_spec(), report), _read(render_page(_spec(), report)).text):
            assert needs in text
            assert other not in text
            assert "measured in float32" in text
            assert 'dtype="float32"' in text
    assert "measured in" not in model_card(_spec(), _report(stored_dtype="float32"))


def test_card_and_page_say_how_wide_the_speed_up_is_and_in_which_precision_quality_was_measured():
    interval = {"low": 1.9, "high": 2.1, "confidence": 0.9688}
    latency = REPORT["latency_ms"] | {"repeats": 6, "interval": interval, "stopped": "narrow"}
    precision = {"dtype": "bfloat16", "reason": "as the weights are stored"}
    report = _report(latency_ms=latency, quality=REPORT["quality"] | {"precision": precision}, stored_dtype="bfloat16")
    for text in (model_card(_spec(), report), _read(render_page(_spec(), report)).text):
        assert "between 1.90 and 2.10 (97 %, 6 turns)" in text
        assert "samples, in bfloat16)" in text
        assert "Quality was measured in bfloat16" in text
        assert "latency was measured in float32" in text


def test_the_card_repeats_what_the_run_warned_of():
    card = model_card(_spec(), _report(warnings=["layer 3 attention: recovery rejected, weights left unrepaired"]))
    assert "## Worth knowing\n\n- layer 3 attention: recovery rejected" in card
    assert "Worth knowing" not in model_card(_spec(), _report())


_GGUF = {"format": "gguf", "kind": "F16", "status": "ok", "path": "gguf/model-F16.gguf"}
_QUANTISED = {"format": "compressed-tensors", "kind": "int8", "status": "ok", "path": "compressed-tensors"}
_SERVES = {
    "vllm": "vllm serve . --served-model-name bundle",
    "mlx": "mlx_lm.server --model .",
    "gguf": "llama-server -m gguf/model-F16.gguf",
    "compressed": "vllm serve compressed-tensors --served-model-name bundle",
}
_FAILED_VLLM = {"engine": "vllm", "status": "failed", "reason": "vLLM gives nonsense"}
_FAILED_LLAMA = {"engine": "llama.cpp", "status": "failed", "reason": "llama.cpp gives nonsense"}


@pytest.mark.parametrize(
    ("engines", "changes", "shown"),
    [
        (["vllm", "mlx"], {"layout": "serve", "exports": [_GGUF, _QUANTISED]}, {"vllm", "mlx", "gguf", "compressed"}),
        (["vllm"], {"layout": "serve"}, {"vllm"}),
        (["mlx"], {"layout": "serve"}, {"mlx"}),
        (["vllm", "mlx"], {"layout": "serve", "engines": [_FAILED_VLLM]}, {"mlx"}),
        ([], {"layout": "stock"}, {"vllm"}),
        ([], {"layout": "per_layer"}, set()),
        ([], {"layout": "per_layer", "exports": [_GGUF]}, {"gguf"}),
        ([], {"layout": "per_layer", "exports": [_GGUF | {"status": "failed"}]}, set()),
        ([], {"layout": "per_layer", "exports": [_GGUF], "engines": [_FAILED_LLAMA]}, set()),
    ],
)
def test_card_and_page_serve_with_what_the_bundle_has(engines, changes, shown):
    task = {"type": "text-generation", "dataset": "org/texts", "columns": {"text": ["text"]}, "metric": "perplexity"}
    spec = _spec(task=task, artifacts={"layout": changes["layout"], "engines": engines})
    report = _report(**changes)
    for text in (model_card(spec, report), _read(render_page(spec, report)).text):
        assert {name for name, command in _SERVES.items() if command in text} == shown
        assert ("/v1/completions" in text) == ("Serve it" in text) == bool(shown)


def test_a_quantised_decoder_is_told_of_once():
    task = {"type": "text-generation", "dataset": "org/texts", "columns": {"text": ["text"]}, "metric": "perplexity"}
    spec, report = _spec(task=task), _report(layout="stock", exports=[_QUANTISED])
    for text in (model_card(spec, report), _read(render_page(spec, report)).text):
        assert text.count("Quantised (int8)") == 1
        assert "from vllm import LLM" not in text, "a server is what people deploy"


_EMBEDS = {"type": "feature-extraction", "dataset": "org/texts", "columns": {"text": ["text"]}, "metric": "cosine"}
_GRAPH = {"path": "onnx/model.onnx", "status": "ok"}
_FAILED_ST = {"engine": "sentence-transformers", "status": "failed", "reason": "it gives nonsense"}
_FAILED_ORT = {"engine": "onnxruntime", "status": "failed", "reason": "it gives nonsense"}


@pytest.mark.parametrize(
    ("task", "changes", "shown"),
    [
        (_EMBEDS, {"layout": "stock"}, {"tei"}),
        (_EMBEDS, {"layout": "stock", "onnx": _GRAPH}, {"tei", "triton"}),
        (_EMBEDS, {"layout": "stock", "engines": [_FAILED_ST]}, set()),
        (_EMBEDS, {"layout": "per_layer"}, set()),
        (_EMBEDS, {"layout": "per_layer", "onnx": _GRAPH}, {"triton"}),
        (None, {"layout": "stock"}, set()),
        (None, {"layout": "per_layer", "onnx": _GRAPH}, {"triton"}),
        (None, {"layout": "per_layer", "onnx": _GRAPH, "engines": [_FAILED_ORT]}, set()),
    ],
)
def test_encoders_are_shown_the_servers_that_take_them(task, changes, shown):
    spec = _spec() if task is None else _spec(task=task)
    report = _report(**changes)
    servers = {"tei": "text-embeddings-inference:cpu-latest --model-id /bundle", "triton": "cp onnx/model.onnx* ../model_repo"}
    for text in (model_card(spec, report), _read(render_page(spec, report)).text):
        assert {name for name, command in servers.items() if command in text} == shown
        assert ("Serve it" in text) == bool(shown)
        assert ("127.0.0.1:8000/embed" in text) == ("tei" in shown)


def test_remote_code_is_trusted_for_the_model_alone():
    card = model_card(_spec(), _report())
    assert 'from_pretrained(".", dtype="float32", trust_remote_code=True)' in card
    assert 'AutoTokenizer.from_pretrained(".", trust_remote_code=False)' in card
    assert 'AutoTokenizer.from_pretrained(".", trust_remote_code=True)' not in card


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([{}], "Heads and neurons were removed by"),
        ([{"kept_heads": 12}], "Neurons were removed by"),
        ([{"kept_neurons": 100}], "Heads were removed by"),
        ([{"kept_heads": 12}, {"kept_heads": 0, "kept_neurons": 0}], "Neurons and 1 whole layer were removed by"),
        ([{"kept_heads": 12, "kept_neurons": 100}, {"kept_heads": 0, "kept_neurons": 0}], "1 whole layer was removed by"),
        ([{"kept_heads": 12, "kept_neurons": 100}], "No heads and no neurons were removed by"),
    ],
)
def test_the_card_names_what_is_gone_and_nothing_else(layers, said):
    assert f"\n{said}" in model_card(_spec(), _report(layers=[REPORT["layers"][0] | own for own in layers]))


@pytest.mark.parametrize(
    ("readme", "expected"),
    [
        ("---\nlicense: mit\n---\n# A model\n", "mit"),
        ("# no metadata\n", None),
        ("---\nlicense: [mit, apache-2.0]\n---\n", None),
        ('---\nlicense: "mit\\nevil: yes"\n---\n', None),
        ("---\n: : not yaml\n---\n", None),
        (None, None),
    ],
)
def test_the_licence_is_the_bases_own(tmp_path: Path, readme, expected):
    if readme is not None:
        (tmp_path / "README.md").write_text(readme)
    assert base_licence(tmp_path) == expected


def _repaired(*pairs: tuple[float | None, float | None], status: str = "converged") -> Report:
    """A report with layers whose attention had these residuals before and after."""
    (first, *_others) = REPORT["layers"]
    layers = [
        {
            **first,
            "layer": number,
            "attention": {**first["attention"], "residual_before": before, "residual_after": after, "status": status},
            "ffn": {**first["ffn"], "residual_before": None, "residual_after": None},
        }
        for number, (before, after) in enumerate(pairs)
    ]
    return _report(layers=layers)


@pytest.mark.parametrize(
    ("pairs", "zero", "worse"),
    [
        ([(0.1, 0.02), (0.05, 0.0)], True, False),
        ([(0.1, 0.02), (0.0, 0.0)], True, False),
        ([(0.0, 0.0)], True, False),
        ([(0.1, 0.02), (0.05, 0.06)], False, True),
        ([(0.1, 0.02), (None, None)], False, False),
    ],
)
def test_repairs_that_are_zero_are_drawn_and_the_colours_have_a_legend(pairs, zero, worse):
    page = render_page(_spec(), _repaired(*pairs))
    (chart,) = [found for found in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL) if "Relative residual" in found]
    measured = [pair for pair in pairs if None not in pair]
    assert chart.count("hollow") >= 1
    assert len(re.findall(r'<use [^>]*style="[^"]*var\(--(?:accent|warn)\)', chart)) == len(measured), "a dot for each"
    assert (">0<" in re.sub(r"\s+", "", chart)) is zero
    assert ("after, and no better" in page) is worse


def test_a_name_is_the_title_of_the_page_as_text():
    page = render_page(_spec(), _report(name="<b>nightly</b> \N{ROCKET}"))
    assert "<h1>&lt;b&gt;nightly&lt;/b&gt; \N{ROCKET}</h1>" in page
    assert "<b>nightly" not in page
    assert "<title>org/name, pruned" in render_page(_spec(), _report())
    assert "name" not in _report().model_dump()
