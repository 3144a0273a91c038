"""Loading code for people to copy: the same on the card, on the page and in the guide. Torch-free.

The code names the data type in which quality and latency were measured: without it, transformers computes in the stored type.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pruning_core.report.report import Report
from pruning_core.spec.prune import AUTO_CLASSES, PruneSpec
from pruning_core.spec.tasks import KINDS


@dataclass(frozen=True, slots=True)
class Snippet:
    """One way to load or to serve the bundle: when to choose it, and the Python or the command for it."""

    title: str
    code: str


# Model classes that generate text, and the code that lets them.
_WRITERS = ("AutoModelForCausalLM", "AutoModelForSeq2SeqLM")
_WRITE = (
    'inputs = tokenizer("a text", return_tensors="pt")\n'
    "written = model.generate(**inputs, max_new_tokens=40)\n"
    "print(tokenizer.decode(written[0], skip_special_tokens=True))"
)


def snippets(spec: PruneSpec, report: Report) -> tuple[Snippet, ...]:
    """Return the ways to load the bundle of a spec, the plainest first."""
    stock, dtype = report.layout == "stock", report.latency_ms.dtype
    loader, images = AUTO_CLASSES[spec.task.type], KINDS[spec.task.type].reads == "image"
    reader = ("processor", "AutoImageProcessor") if images else ("tokenizer", "AutoTokenizer")
    form = _Form(loader, dtype, *reader)
    found = [form.snippet("With transformers")] if stock else _per_layer(form)
    if loader in _WRITERS:
        found.append(Snippet("And let it write", _WRITE))
    if loader == "AutoModel":
        trust = "" if stock else ", trust_remote_code=True"
        found.append(
            Snippet(
                "As sentence embeddings",
                "from sentence_transformers import SentenceTransformer\n\n"
                f'model = SentenceTransformer("."{trust}, model_kwargs={{"dtype": "{dtype}"}})\n'
                'embeddings = model.encode(["one sentence", "another"])',
            )
        )
    if report.compressed is not None and report.compressed.path is not None:
        found.append(
            Snippet(
                "From the compressed form, which is the smaller download",
                f"import pruning_core  # lays the values out\nfrom transformers import {loader}\n\n"
                f'model = {loader}.from_pretrained("{report.compressed.path}", dtype="{dtype}")',
            )
        )
    if report.onnx is not None and report.onnx.path is not None:
        found.append(_with_onnxruntime(report.onnx.path, reader[1], images=images))
    for row in report.exports:
        if row.status == "ok" and row.path is not None:
            found.extend(_of_export(row.format, row.kind, row.path, form, images=images))
    return tuple(found)


def _with_onnxruntime(path: str, reader: str, *, images: bool, kind: str = "") -> Snippet:
    return Snippet(
        f"With onnxruntime{f', {kind}' if kind else ''}",
        f"import onnxruntime\n{_prelude(reader, images=images)}"
        f'session = onnxruntime.InferenceSession("{path}")\n'
        f"inputs = {_inputs(reader, images=images)}\n"
        "outputs = session.run(None, {entry.name: inputs[entry.name] for entry in session.get_inputs()})[0]",
    )


def _of_export(form: str, kind: str, path: str, words: _Form, *, images: bool) -> Iterator[Snippet]:
    """Yield how a further form is loaded; nothing for forms that have their own words elsewhere."""
    reader = words.reader
    if form == "onnx":
        yield _with_onnxruntime(path, reader, images=images, kind=kind)
    elif form == "openvino":
        yield Snippet(
            "With OpenVINO",
            f"import openvino\n{_prelude(reader, images=images)}"
            f'model = openvino.compile_model("{path}", "CPU")\n'
            f"inputs = {_inputs(reader, images=images)}\n"
            "outputs = model({entry.any_name: inputs[entry.any_name] for entry in model.inputs})[0]",
        )
    elif form == "compressed-tensors" and words.loader != "AutoModelForCausalLM":  # decoders are served: see `serving`
        yield Snippet(
            f"Quantised ({kind}), with transformers and compressed-tensors",
            f'from transformers import {words.loader}\n\nmodel = {words.loader}.from_pretrained("{path}")',
        )


def _prelude(reader: str, *, images: bool) -> str:
    picture = "from PIL import Image\n" if images else ""
    return f"{picture}from transformers import {reader}\n\n"


def _inputs(reader: str, *, images: bool) -> str:
    given = '[Image.open("image.png")]' if images else '["a text", "another"], padding=True'
    return f'{reader}.from_pretrained(".", trust_remote_code=False)({given}, return_tensors="np")'


def summary(report: Report) -> str:
    """Return a sentence or two on what loading needs, and on the data type of the measurements."""
    needs = (
        "It loads in transformers as it is, with nothing of Coppice."
        if report.layout == "stock"
        else "Each layer has its own widths, so it loads in transformers with one import of Coppice, or without Coppice by the "
        "loader in this folder, which transformers runs only when it is told to trust it."
    )
    measured, stored = report.latency_ms.dtype, report.stored_dtype
    if stored in (None, measured):
        return needs
    if report.quality.dtype == stored:
        return (
            f"{needs} Quality was measured in {stored}, in which the weights are stored and transformers computes without "
            f"`dtype`; latency was measured in {measured}, as the code here loads it."
        )
    return (
        f"{needs} Quality and latency were measured in {measured}, as the code here loads it; without `dtype`, transformers "
        f"computes in {stored}, in which the weights are stored."
    )


@dataclass(frozen=True, slots=True)
class _Form:
    """The variable parts of loading code: model class, data type, and the name and class of what reads the inputs."""

    loader: str
    dtype: str
    name: str
    reader: str

    def snippet(self, title: str, prelude: str = "", *, trusting: bool = False) -> Snippet:
        # The model's class is in the folder; the tokenizer's is not, so nothing is to be trusted for it.
        model, reader = (", trust_remote_code=True", ", trust_remote_code=False") if trusting else ("", "")
        return Snippet(
            title,
            f"{prelude}from transformers import {', '.join(sorted((self.reader, self.loader)))}\n\n"
            f'model = {self.loader}.from_pretrained(".", dtype="{self.dtype}"{model})\n'
            f'{self.name} = {self.reader}.from_pretrained("."{reader})',
        )


def _per_layer(form: _Form) -> list[Snippet]:
    teach = "import pruning_core  # teaches transformers the per-layer widths\n"
    alone = "With transformers alone: runs modeling_coppice.py of this folder"
    return [
        form.snippet("With Coppice: pip install 'coppice-prune[load]'", prelude=teach),
        form.snippet(alone, trusting=True),
    ]


def display_name(model: str) -> str:
    """Return the base model's name without a server's folders: the last component of a path, or the whole Hub id."""
    return model.rstrip("/").rpartition("/")[2] if model.startswith(("/", ".", "~")) else model
