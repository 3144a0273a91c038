"""Commands that serve the bundle, for people to copy: the same on the card, on the page and in the guide. Torch-free.

Only what this bundle's own report does not speak against is shown: an engine that failed on it, or cannot hold it, is left out.
"""

from __future__ import annotations

from collections.abc import Iterator

from pruning_core.artifacts.loading import Snippet
from pruning_core.report.report import Report
from pruning_core.spec.prune import AUTO_CLASSES, PruneSpec

_VLLM = ("vllm", "vllm-plugin")
_AT = "--host 127.0.0.1 --port 8000"
_TEI = "ghcr.io/huggingface/text-embeddings-inference:cpu-latest"
_EMBED = """curl -s http://127.0.0.1:8000/embed -H 'Content-Type: application/json' -d '{"inputs": ["a text"]}'"""
_ASK = (
    "curl -s http://127.0.0.1:8000/v1/completions -H 'Content-Type: application/json' "
    '-d \'{"model": "bundle", "prompt": "a text", "max_tokens": 40}\''
)


def commands(spec: PruneSpec, report: Report) -> tuple[Snippet, ...]:
    """Return the commands that serve a bundle, to be run in its folder; none where only a program of one's own does."""
    if AUTO_CLASSES[spec.task.type] != "AutoModelForCausalLM":
        return (*_of_embedders(spec, report), *_of_graphs(report))
    found = [*_of_checkpoint(spec, report), *_of_exports(report)]
    return (*found, Snippet("And ask it, as OpenAI's API is asked", _ASK)) if found else ()


def _of_embedders(spec: PruneSpec, report: Report) -> Iterator[Snippet]:
    """Yield the servers of embeddings: they know stock configurations alone."""
    if AUTO_CLASSES[spec.task.type] != "AutoModel" or report.layout != "stock" or not _able(report, "sentence-transformers"):
        return
    yield Snippet(
        "With Text Embeddings Inference (TEI), for BERT, RoBERTa, DistilBERT, MPNet and others that it knows",
        f'docker run -p 8000:80 -v "$PWD":/bundle {_TEI} --model-id /bundle',
    )
    yield Snippet("And ask it for embeddings", _EMBED)


def _of_graphs(report: Report) -> Iterator[Snippet]:
    """Yield the server of ONNX graphs, where there is one. OpenVINO's form needs another layout of the repository."""
    path = None if report.onnx is None else report.onnx.path
    if path is None or not _able(report, "onnxruntime"):
        return
    yield Snippet(
        "With Triton, whose ONNX Runtime takes the graph: its model repository (config.pbtxt is in Coppice's guide Serve it)",
        f"mkdir -p ../model_repository/bundle/1\ncp {path}* ../model_repository/bundle/1/",
    )


def _of_checkpoint(spec: PruneSpec, report: Report) -> Iterator[Snippet]:
    asked = set(spec.artifacts.engines)
    # In the layout serve, widths are what the engines asked for can hold, and no more than that is known.
    wanted = report.layout == "stock" or (report.layout == "serve" and not asked.isdisjoint(_VLLM))
    if wanted and _able(report, *_VLLM):
        beside = "" if report.layout == "stock" else ": pip install coppice-prune beside it"
        yield Snippet(f"With vLLM{beside}", f"vllm serve . --served-model-name bundle {_AT}")
    if report.layout in ("stock", "serve") and "mlx" in asked and _able(report, "mlx"):
        yield Snippet("With MLX, where the model's name in requests is its folder", f"mlx_lm.server --model . {_AT}")


def _of_exports(report: Report) -> Iterator[Snippet]:
    there = [row for row in report.exports if row.status == "ok" and row.path is not None]
    files = [row for row in there if row.format == "gguf"]
    if files and _able(report, "llama.cpp"):
        kind = f" ({files[0].kind})" if files[0].kind else ""
        yield Snippet(f"With llama.cpp{kind}", f"llama-server -m {files[0].path} {_AT}")
    for row in there:
        if row.format == "compressed-tensors":
            title = f"Quantised ({row.kind}), with vLLM"
            yield Snippet(title, f"vllm serve {row.path} --served-model-name bundle {_AT}")


def _able(report: Report, *engines: str) -> bool:
    """Whether nothing speaks against engines: one of them works, was not asked for, or is not installed here."""
    rows = [row for row in report.engines if row.engine in engines]
    return not rows or any(row.status in ("ok", "missing") for row in rows)
