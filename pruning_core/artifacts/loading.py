"""How a bundle is loaded, as code that people copy: on the card, on the page and in the guide the same. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from pruning_core.report import Report
from pruning_core.spec import AUTO_CLASSES, PruneSpec


@dataclass(frozen=True, slots=True)
class Snippet:
    """One way to load the bundle: when to choose it, and the Python for it."""

    title: str
    code: str


def snippets(spec: PruneSpec, report: Report) -> tuple[Snippet, ...]:
    """Give the ways to load what a spec has made, the plainest first."""
    loader, stock = AUTO_CLASSES[spec.task.type], report.layout == "stock"
    found = [_transformers("With transformers", loader)] if stock else _per_layer(loader)
    if spec.task.type == "feature-extraction":
        trust = "" if stock else ", trust_remote_code=True"
        found.append(
            Snippet(
                "As sentence embeddings",
                "from sentence_transformers import SentenceTransformer\n\n"
                f'model = SentenceTransformer("."{trust})\n'
                'embeddings = model.encode(["one sentence", "another"])',
            )
        )
    if report.onnx is not None and report.onnx.path is not None:
        found.append(
            Snippet(
                "With onnxruntime",
                "import onnxruntime\nfrom transformers import AutoTokenizer\n\n"
                f'session = onnxruntime.InferenceSession("{report.onnx.path}")\n'
                'inputs = AutoTokenizer.from_pretrained(".")(["a text", "another"], padding=True, return_tensors="np")\n'
                "outputs = session.run(None, {entry.name: inputs[entry.name] for entry in session.get_inputs()})[0]",
            )
        )
    return tuple(found)


def _per_layer(loader: str) -> list[Snippet]:
    return [
        _transformers("With Coppice installed", loader, "import pruning_core  # teaches transformers the per-layer widths\n"),
        _transformers(
            "With transformers alone: runs modeling_coppice.py of this folder", loader, options=", trust_remote_code=True"
        ),
    ]


def _transformers(title: str, loader: str, prelude: str = "", options: str = "") -> Snippet:
    return Snippet(
        title,
        f"{prelude}from transformers import AutoTokenizer, {loader}\n\n"
        f'model = {loader}.from_pretrained("."{options})\n'
        'tokenizer = AutoTokenizer.from_pretrained(".")',
    )


def display_name(model: str) -> str:
    """Name the base model without telling a server's folders: a path by its last part, a Hub id whole."""
    return model.rstrip("/").rpartition("/")[2] if model.startswith(("/", ".", "~")) else model
