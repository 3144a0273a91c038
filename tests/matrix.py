"""The contract matrix: methods, tasks and outputs on every architecture, from the request to the proof in a fresh process.

``python -m tests.matrix`` (``make architectures``) tries every cell and writes what it found for ``GET /v1/architectures``
and the page of architectures; `tests/contract/test_matrix.py` tries the same cells and compares. ``python -m tests.matrix llama
gemma`` tries those alone, ``--missing`` tries cells that are not in the table yet, ``--page`` tries none and writes the page
anew.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from pruning_core.engines import limits
from pruning_core.spec.tasks import KINDS
from pruning_core.support.matrix import MATRIX_NAME, Asked, MatrixCell, TriedArchitecture, read_matrix, write_matrix
from tests import tasks, tiny
from tests.families import ARCHITECTURES, Architecture
from tests.matrix_page import page

ROOT = Path(__file__).resolve().parents[1]
JSON_PATH = ROOT / "pruning_core" / "support" / MATRIX_NAME
PAGE_PATH = ROOT / "docs" / "architectures.md"

# The architecture on which each task meets every method and every output.
SHOWN_ON = dict.fromkeys(KINDS, "bert") | {
    "text-generation": "gpt2",
    "summarization": "t5",
    "translation": "t5",
    "image-classification": "vit",
}


def methods_on(task: str) -> tuple[Asked, ...]:
    """Ask for every method and layout."""
    return (
        Asked(task=task),
        Asked(task=task, layout="stock"),
        Asked(task=task, method="magnitude"),
        Asked(task=task, method="random"),
        *(
            Asked(task=task, method=name, tier=tier, layout="stock")
            for name in ("admm-pattern", "block-lasso")
            for tier in ("one-shot", "trained")
        ),
        # Where dead units are removed, which the stock layout cannot say.
        Asked(task=task, method="block-lasso", tier="one-shot"),
    )


def outputs_on(task: str) -> tuple[Asked, ...]:
    """Ask for every format, type of weights and way to divide them: several in one, where one says nothing of another."""
    return (
        Asked(task=task, formats=("safetensors", "onnx"), dtype="float16"),
        Asked(
            task=task,
            method="block-lasso",
            tier="one-shot",
            layout="stock",
            formats=("safetensors", "compressed"),
            dtype="bfloat16",
        ),
        Asked(task=task, sharded=True),
    )


def asked_of(architecture: Architecture) -> tuple[Asked, ...]:
    """List what is asked of an architecture: every task by one method, and every method on its usual task."""
    asked = [Asked(task=task) for task in KINDS]
    asked += [*methods_on(architecture.task), Asked(task=architecture.task, formats=("safetensors", "onnx"))]
    for task, shown_on in SHOWN_ON.items():
        if shown_on == architecture.name:
            asked += [*methods_on(task), *outputs_on(task)]
    return tuple(dict.fromkeys(asked))


def spec_of(asked: Asked, model: Path, data: Path, *, experts: bool = False):
    """Write it as a spec. Of a mixture of experts, the target is one that experts bring nearer."""
    method = {"name": asked.method}
    fields = {
        "task": tasks.task_of(asked.task, data),
        "artifacts": {"layout": asked.layout, "formats": asked.formats, "dtype": asked.dtype},
        "target": {"metric": "macs", "keep": 0.9 if asked.sharded else 0.6, "tolerance": 0.1},
        "evaluation": {"max_samples": 32},
    }
    if experts:
        fields["target"] = {"metric": "params", "keep": 0.8, "tolerance": 0.1}
    if asked.sharded:
        fields["artifacts"]["shard_mb"] = 1
    if asked.method == "block-lasso":
        method |= {"block": "8x8"}
        fields["target"] = {"metric": "sparsity", "sparsity": 0.5}
    elif asked.method == "admm-pattern":
        method |= {"pattern": "2:4"}
        fields["target"] = None
    if asked.tier is not None:
        method["tier"] = asked.tier
    if asked.tier == "trained":
        method["training"] = {"epochs": 1, "max_train_rows": 24, "judgements": 1}
        if not KINDS[asked.task].has_loss:
            method["training"]["distillation"] = 1
    return tiny.tiny_spec(model, data, method=method, **fields)


def try_cell(architecture: Architecture, asked: Asked, folder: Path) -> MatrixCell:
    """Ask for it, by files alone first. What is let in there must work: any error of the job is one of the tests."""
    from pruning_core.checks.request import check_local_inputs
    from pruning_core.errors import PruningError
    from pruning_core.run.pipeline import run

    model, data = folder / f"{asked.task}{'-wide' * asked.sharded}", folder / f"data-{asked.task}"
    if not model.exists():
        architecture.write_for(asked.task, model, sharded=asked.sharded)
    if not data.exists():
        tasks.write_task_data(data, asked.task)
    spec = spec_of(asked, model, data, experts=architecture.experts)
    try:
        check_local_inputs(spec)
    except PruningError as error:
        return MatrixCell(**dict(asked), result="refused", reason=error.message)
    out = Path(tempfile.mkdtemp(dir=folder)) / "out"
    report = run(spec, out, device="cpu")
    assert report.acceptance is not None
    assert (len(list(out.glob("*.safetensors"))) > 1) == asked.sharded
    formats = {"onnx": report.onnx, "compressed": report.compressed}
    found = {name: form.status for name, form in formats.items() if form is not None and name in asked.formats}
    failure = next((form.reason for form in formats.values() if form is not None and form.status == "failed"), None)
    return MatrixCell(**dict(asked), result="works", failure=failure, **found)


_WHILE_IT_LIVES = ExitStack()


def _prepare() -> None:
    from tests.prover import Prover

    _WHILE_IT_LIVES.enter_context(Prover().proving())


def try_architecture(name: str, known: TriedArchitecture | None = None) -> TriedArchitecture:
    """Try every way, but those that are known already."""
    architecture = ARCHITECTURES[name]
    with tempfile.TemporaryDirectory() as scratch:
        cells = tuple(
            (None if known is None else known.cell(asked)) or try_cell(architecture, asked, Path(scratch))
            for asked in asked_of(architecture)
        )
    return tried(architecture, cells)


def tried(architecture: Architecture, cells: tuple[MatrixCell, ...]) -> TriedArchitecture:
    """Sum up."""
    from pruning_core.arch.adapter import adapt

    family = None if architecture.refused else adapt(architecture.build()).family.family
    return TriedArchitecture(name=architecture.name, family=family, generates=architecture.generates, cells=cells)


def shown(found: tuple[TriedArchitecture, ...]) -> str:
    """Write the page for people."""
    return page(found, SHOWN_ON, methods_on, outputs_on, serves)


def serves(name: str) -> tuple[str, ...]:
    """List the engines that can hold an architecture in the layout serve, by its configuration; none where it is refused."""
    architecture = ARCHITECTURES[name]
    if architecture.refused:
        return ()
    config = architecture.build_config().to_dict()
    return tuple(engine for engine in limits.ENGINES if limits.reason_against(engine, config) is None)


def main(names: list[str]) -> None:
    """Try what is named, or everything, two architectures at a time, and write it; with ``--missing`` what is not yet there."""
    if names == ["--page"]:
        PAGE_PATH.write_text(shown(read_matrix()), encoding="utf-8")
        return
    before = {own.name: own for own in read_matrix()} if names else {}
    missing = names == ["--missing"]
    known = dict(before) if missing else {}
    names = [] if missing else names
    # The longest first, so that none is left to run alone at the end.
    order = sorted(names or ARCHITECTURES, key=lambda name: -len(asked_of(ARCHITECTURES[name])))
    with multiprocessing.get_context("spawn").Pool(2, initializer=_prepare) as pool:
        for found in pool.starmap(try_architecture, [(name, known.get(name)) for name in order], chunksize=1):
            before[found.name] = found
            print(found.name, *(cell.result for cell in found.cells), flush=True)
    found = tuple(before[name] for name in ARCHITECTURES if name in before)
    JSON_PATH.write_text(write_matrix(found), encoding="utf-8")
    PAGE_PATH.write_text(shown(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
