"""Every layout and format, made by the command line and loaded in fresh processes with a clean environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests import tiny

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TEXTS = ["word1 good word3", "bad word5", "word7 word8 word9 word10 word11"]


def _environment(home):
    """Nothing of the test's own surroundings but where programs are."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
    return kept | {"HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def _fresh(home, code, *arguments, without_coppice=True):
    """Run code in a fresh process; give the JSON that it prints last."""
    hidden = "('pruning_core', 'coppice', 'app', 'worker')" if without_coppice else "()"
    prelude = f"import json, sys\nsys.modules.update(dict.fromkeys({hidden}))  # None there: as if not installed\n"
    done = subprocess.run(
        [sys.executable, "-I", "-c", prelude + code, *map(str, arguments)],
        env=_environment(home),
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def _prune(model, data, out, *options, home):
    spec = tiny.tiny_spec(model, data).model_dump(mode="json", exclude_none=True)
    del spec["target"], spec["targets"]
    if not (data / "train.parquet").exists():
        columns = {"text": ["text"]}
        spec["task"] = {"type": "feature-extraction", "dataset": str(data), "columns": columns, "metric": "cosine"}
    (home / "spec.json").write_text(json.dumps(spec))
    command = [sys.executable, "-m", "coppice.cli", "run", "--spec", home / "spec.json", "--out", out, "--json", *options]
    done = subprocess.run(list(map(str, command)), env=_environment(home), capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


@pytest.fixture(scope="module")
def bundles(tiny_bert, tiny_sst2, tmp_path_factory):
    """One bundle a layout, each with an ONNX graph; and the home of the processes that look at them."""
    home = tmp_path_factory.mktemp("bundles")
    made = {}
    for layout in ("per_layer", "stock"):
        options = ("--macs-keep", "0.6", "--layout", layout, "--format", "safetensors", "--format", "onnx")
        code, report, errors = _prune(tiny_bert, tiny_sst2, home / layout, *options, home=home)
        assert code == 0, errors
        made[layout] = report
    return home, made


_LOGITS = """
import torch
{prelude}
from transformers import AutoModelForSequenceClassification, AutoTokenizer
folder, texts = sys.argv[1], json.loads(sys.argv[2])
model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32{options}).eval()
inputs = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
with torch.no_grad():
    logits = model(**inputs).logits
print(json.dumps([logits.tolist(), sum(p.numel() for p in model.parameters())]))
"""

_ONNX = """
import onnxruntime
from transformers import AutoTokenizer
folder, texts = sys.argv[1], json.loads(sys.argv[2])
session = onnxruntime.InferenceSession(folder + "/onnx/model.onnx", providers=["CPUExecutionProvider"])
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
def run(texts):
    inputs = tokenizer(texts, padding=True, return_tensors="np")
    return session.run(None, {entry.name: inputs[entry.name] for entry in session.get_inputs()})[0].tolist()
# One by one and together: other batch sizes and lengths, the same answers.
print(json.dumps([run(texts), [run([text])[0] for text in texts]]))
"""


@pytest.mark.long
def test_stock_loads_where_nothing_of_ours_is(bundles):
    home, reports = bundles
    logits, parameters = _fresh(home, _LOGITS.format(prelude="", options=""), home / "stock", json.dumps(TEXTS))
    assert parameters == reports["stock"]["parameters"]["pruned"]
    assert len(logits) == len(TEXTS)


@pytest.mark.long
def test_per_layer_loads_by_its_own_loader_or_by_the_plug_in_to_the_same_numbers(bundles):
    home, reports = bundles
    alone = _LOGITS.format(prelude="", options=", trust_remote_code=True")
    plug_in = _LOGITS.format(prelude="import pruning_core", options="")
    first = _fresh(home, alone, home / "per_layer", json.dumps(TEXTS))
    second = _fresh(home, plug_in, home / "per_layer", json.dumps(TEXTS), without_coppice=False)
    assert first == second
    assert first[1] == reports["per_layer"]["parameters"]["pruned"]


@pytest.mark.parametrize("layout", ["per_layer", pytest.param("stock", marks=pytest.mark.long)])
def test_the_graph_gives_what_the_model_gives(bundles, layout):
    home, reports = bundles
    options = ", trust_remote_code=True" if layout == "per_layer" else ""
    logits, _ = _fresh(home, _LOGITS.format(prelude="", options=options), home / layout, json.dumps(TEXTS))
    together, one_by_one = _fresh(home, _ONNX, home / layout, json.dumps(TEXTS))
    for answers in (together, one_by_one):
        for mine, theirs in zip(answers, logits, strict=True):
            assert mine == pytest.approx(theirs, abs=1e-4)
    graph = reports[layout]["onnx"]
    assert (graph["status"], graph["path"]) == ("ok", "onnx/model.onnx")
    assert graph["latency_ms"] > 0


@pytest.mark.parametrize("layout", ["per_layer", pytest.param("stock", marks=pytest.mark.long)])
def test_whatever_the_card_shows_runs_as_it_is(bundles, layout):
    home, _ = bundles
    blocks = (home / layout / "README.md").read_text().split("```python\n")[1:]
    assert len(blocks) == (3 if layout == "per_layer" else 2)  # ways for transformers, and onnxruntime
    for block in blocks:
        code = block.partition("```")[0]
        own = "import pruning_core" in code
        found = _fresh(home / layout, f"{code}\nprint(json.dumps(sorted(set(dir()))))", without_coppice=not own)
        assert {"model", "tokenizer"} <= set(found) or {"session", "outputs"} <= set(found)


_EMBED = """
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1]{options})
print(json.dumps(model.encode(json.loads(sys.argv[2])).tolist()))
"""


@pytest.mark.parametrize("layout", ["per_layer", pytest.param("stock", marks=pytest.mark.matrix)])
@pytest.mark.long
def test_embeddings_load_as_a_sentence_transformer(layout, tmp_path):
    model = tiny.write_model(tmp_path / "model", "bert", task="features")
    options = ("--macs-keep", "0.6", "--layout", layout)
    code, report, errors = _prune(model, tiny.write_jsonl(tmp_path / "data"), tmp_path / "out", *options, home=tmp_path)
    assert code == 0, errors
    assert report["acceptance"]["loader"] == ("stock" if layout == "stock" else "remote_code")
    trust = "" if layout == "stock" else ", trust_remote_code=True"
    card = (tmp_path / "out" / "README.md").read_text().partition("from sentence_transformers")
    found = _fresh(tmp_path / "out", "".join(card[1:]).partition("```")[0] + "\nprint(json.dumps(embeddings.tolist()))")
    assert len(found) == 2
    embeddings = _fresh(tmp_path, _EMBED.format(options=trust), tmp_path / "out", json.dumps(TEXTS))
    assert [sum(x * x for x in row) for row in embeddings] == pytest.approx([1, 1, 1], abs=1e-5)


@pytest.mark.long
def test_a_floor_that_is_missed_ends_with_1_and_leaves_the_candidate(tmp_path):
    model = tiny.write_model(tmp_path / "model", "bert", task="features")
    data = tiny.write_jsonl(tmp_path / "data")
    options = ("--macs-keep", "0.6", "--quality-floor", "1.0")
    code, report, errors = _prune(model, data, tmp_path / "out", *options, home=tmp_path)
    assert (code, report) == (1, None)
    assert "quality_floor" in errors
    assert {"model.safetensors", "report.json", "report.html", "manifest.json"} <= {
        p.name for p in (tmp_path / "out").iterdir()
    }


@pytest.mark.long
def test_nonsense_is_refused_in_a_sentence(tiny_bert, tiny_sst2, tmp_path):
    for options, expected in (
        (("--macs-keep", "0.6", "--layout", "flat"), "--layout must be 'per_layer', 'stock' or 'serve'"),
        (("--macs-keep", "0.6", "--format", "gguff"), "--format must be 'safetensors', 'onnx', 'compressed', "),
        (("--quality-floor", "1.5"), "--quality-floor"),
        ((), "target is required"),
    ):
        code, _, errors = _prune(tiny_bert, tiny_sst2, tmp_path / "out", *options, home=tmp_path)
        assert code == 2
        assert expected in errors
        assert "Traceback" not in errors
