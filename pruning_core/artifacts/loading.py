"""How a bundle is loaded, as code that people copy: on the card, on the page and in the guide the same. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from pruning_core.spec import AUTO_CLASSES, PruneSpec


@dataclass(frozen=True, slots=True)
class Snippet:
    """One way to load the bundle: when to choose it, and the Python for it."""

    title: str
    code: str


def snippets(spec: PruneSpec) -> tuple[Snippet, ...]:
    """Give the ways to load what a spec makes, the plainest first."""
    loader = AUTO_CLASSES[spec.task.type]
    found = [
        Snippet(
            "With Coppice installed",
            "import pruning_core  # teaches transformers the per-layer widths\n"
            f"from transformers import AutoTokenizer, {loader}\n\n"
            f'model = {loader}.from_pretrained(".")\n'
            'tokenizer = AutoTokenizer.from_pretrained(".")',
        ),
        Snippet(
            "With transformers alone: runs modeling_coppice.py of this folder",
            f"from transformers import AutoTokenizer, {loader}\n\n"
            f'model = {loader}.from_pretrained(".", trust_remote_code=True)\n'
            'tokenizer = AutoTokenizer.from_pretrained(".")',
        ),
    ]
    if spec.task.type == "feature-extraction":
        found.append(
            Snippet(
                "As sentence embeddings",
                "from sentence_transformers import SentenceTransformer\n\n"
                'model = SentenceTransformer(".", trust_remote_code=True)\n'
                'embeddings = model.encode(["one sentence", "another"])',
            )
        )
    return tuple(found)


def display_name(model: str) -> str:
    """Name the base model without telling a server's folders: a path by its last part, a Hub id whole."""
    return model.rstrip("/").rpartition("/")[2] if model.startswith(("/", ".", "~")) else model
