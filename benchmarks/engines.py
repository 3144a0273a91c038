"""``make bench-engines``: bundles in the engines that people serve with: agreement, speed, and what the engines' limits cost.

Four parts, each of which runs alone by ``--only``:

* decoder: a language model pruned to a share of its MACs in layout ``serve``, in every engine and in vLLM's command line
  server; 20 texts that were fixed before (those of the proof of GGUF files) are scored, and two of them are continued.
* constraints: the same model at the same budget in the shapes of each engine, beside layouts ``per_layer`` and ``stock``.
* latency: the same model pruned to a share of its latency in vLLM, planned by a table that is measured there.
* encoder: the MiniLM of ``../shared`` in the engines of encoders.

Dense and pruned models are timed in turns in each engine, so their ratio is of one state of the machine. Without ``--data``
the text is that of `docstrings`. Prints tables; the last line of stdout is one JSON object, which is written to
benchmarks/results/engines.json too, where parts of earlier runs are kept.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import torch
from rich.console import Console

from benchmarks.docstrings import write_docstrings
from benchmarks.engine_tables import Row, show_constraints, show_decoder, show_encoder, show_latency
from benchmarks.models import SHARED, shared_model
from benchmarks.vllm_server import Server, serving
from pruning_core.artifacts.engines.inputs import Inputs, inputs_for
from pruning_core.artifacts.engines.judging import judge, tolerance_of
from pruning_core.artifacts.engines.messages import EngineFound
from pruning_core.artifacts.engines.prover import Checkpoint, EngineProver
from pruning_core.artifacts.exports.gguf.proof import TEXTS
from pruning_core.data.rows import Rows
from pruning_core.engines.limits import limits_of
from pruning_core.engines.registry import Missing, find
from pruning_core.errors import PruningError
from pruning_core.files.checkpoint import read_checkpoint
from pruning_core.models.load import load_task_model
from pruning_core.report.engines import EngineReport, SpeedReport
from pruning_core.report.report import Report
from pruning_core.run.pipeline import run
from pruning_core.spec.prune import PruneSpec

DECODER_ENGINES = ("transformers", "vllm", "vllm-plugin", "llama.cpp", "mlx")
RESULTS = Path(__file__).with_name("results") / "engines.json"
_TOP = 8


@dataclass(frozen=True, slots=True)
class Setting:
    """What all parts share.

    Attributes:
        model: The decoder.
        data: Folder of its texts.
        shared: Folder with the encoder and its data.
        out: Folder of the bundles; one that is there already is not made again.
        keep: Share of the MACs that the decoder keeps.
        samples: Calibration samples.
        seed: Seed of everything.
        threads: Threads of the engines.
    """

    model: Path | None
    data: Path
    shared: Path
    out: Path
    keep: float
    samples: int
    seed: int
    threads: int

    def decoder(self, **artifacts: Any) -> PruneSpec:
        """Return the request to prune the decoder."""
        if self.model is None:
            sys.exit("give --model the folder of a language model, such as SmolLM2-135M-Instruct")
        return PruneSpec.model_validate(
            {
                "model": str(self.model.resolve()),
                "task": {"type": "text-generation", "metric": "perplexity", "columns": {"text": ["text"]}},
                "data": str(self.data.resolve()),
                "target": {"metric": "macs", "keep": self.keep},
                "seed": self.seed,
                "calibration": {"samples": self.samples, "max_length": 128},
                "evaluation": {"max_samples": 24, "max_length": 128},
                "latency": {"repeats": 3, "batch": 1, "length": 64, "threads": self.threads},
                "artifacts": artifacts,
            }
        )

    def bundle(self, name: str, spec: PruneSpec, *, engines: Path | None = None) -> tuple[Path, Report]:
        """Prune, or take what an earlier run has left in the folder of bundles."""
        folder = self.out / name
        if (folder / "report.json").is_file():
            return folder, Report.model_validate_json((folder / "report.json").read_text(encoding="utf-8"))
        print(f"{time.strftime('%H:%M:%S')} pruning: {name}", file=sys.stderr, flush=True)
        return folder, run(spec, folder, device="cpu", engines=engines)

    def all_engines(self) -> tuple[PruneSpec, Path, Report]:
        """Prune the decoder in the shapes that all its engines take; they are run afterwards, on texts of their own."""
        spec = self.decoder(layout="serve", engines=DECODER_ENGINES, formats=["safetensors", "gguf"])
        return spec, *self.bundle("all", spec, engines=self.out / "no-engines")


def decoder_rows(setting: Setting) -> list[Row]:
    """Run the decoder in every engine, and in vLLM's server."""
    spec, folder, report = setting.all_engines()
    source = load_task_model(Path(spec.model), "text-generation", torch.device("cpu"))
    texts = Rows(tuple((text,) for text in TEXTS), None)
    prover = EngineProver(spec, source, texts, (), trust_remote_code=True, limit_s=1200)

    def tell(done: int) -> None:
        print(f"{time.strftime('%H:%M:%S')} {done} engines of {len(prover.engines)} are done", file=sys.stderr, flush=True)

    rows = [_engine_row(own.engine, own) for own in prover.prove(Checkpoint(folder, exports=report.exports), tell)]
    return [
        *rows,
        *_server_rows(folder, inputs_for(load_task_model(folder, "text-generation", source.device), texts, (), spec)),
    ]


def _server_rows(folder: Path, inputs: Inputs) -> Iterator[Row]:
    """Serve the bundle by vLLM's command line, and ask it over the OpenAI API."""
    found = find("vllm", tries=False)
    if isinstance(found, Missing):
        yield {"engine": "vLLM's server", "status": "missing", "reason": found.why}
        return
    ways: tuple[tuple[str, str, bool, tuple[str, ...]], ...] = (
        ("vLLM's server, plug-in", "float32", True, ()),
        ("vLLM's server, --trust-remote-code", "float32", False, ("--trust-remote-code",)),
        ("vLLM's server, plug-in, in its own choice of type", "bfloat16", True, ()),
    )
    for name, dtype, plugin, options in ways:
        chosen = ("--dtype", dtype, "--enforce-eager", "--max-model-len", "512", *options)
        began = time.monotonic()
        try:
            with (
                tempfile.TemporaryDirectory(prefix="coppice-serve-", ignore_cleanup_errors=True) as scratch,
                serving(found.interpreter, folder, Path(scratch), *chosen, plugin=plugin) as server,
            ):
                row = _asked(server, inputs, dtype)
        except (RuntimeError, OSError, httpx2.TransportError) as error:
            row = {"status": "failed", "reason": str(error)}
        yield {"engine": name, "version": found.version, "seconds": time.monotonic() - began, **row}


def _asked(server: Server, inputs: Inputs, dtype: str) -> Row:
    found = EngineFound(
        texts=[server.score(text, _TOP) for text in inputs.texts],
        generated=[server.generate(prompt, inputs.new_tokens) for prompt in inputs.prompts],
        dtype=dtype,
    )
    tolerance = tolerance_of(dtype)
    if dtype != "float32":  # how far bfloat16 is from float32 is a figure of the table, and the tokens decide
        tolerance = replace(tolerance, difference=math.inf)
    judged = judge(found, inputs.reference, tolerance)
    return {
        "status": "ok" if judged.problem is None else "failed",
        "reason": judged.problem,
        "computed": dtype,
        "texts": len(inputs.texts),
        "tokens": judged.tokens,
        "decided": judged.decided,
        "agreement": judged.agreement,
        "max_difference": judged.difference,
    }


def _engine_row(name: str, row: EngineReport, **more: Any) -> Row:
    computed = next((note.removeprefix("computed in ") for note in row.notes if note.startswith("computed in ")), None)
    return {
        **more,
        "engine": name,
        **row.model_dump(exclude={"engine"}, mode="json"),
        "computed": computed,
        "speedup": _speedups(row.dense, row.pruned),
    }


def _speedups(dense: SpeedReport | None, pruned: SpeedReport | None) -> dict[str, float]:
    """Return how many times as fast the pruned model is, by what was timed."""
    if dense is None or pruned is None:
        return {}
    found: dict[str, float] = {}
    if dense.pass_ms and pruned.pass_ms:
        found["pass"] = dense.pass_ms / pruned.pass_ms
    if dense.prefill_tokens_s and pruned.prefill_tokens_s:
        found["prefill"] = pruned.prefill_tokens_s / dense.prefill_tokens_s
    if dense.decode_tokens_s and pruned.decode_tokens_s:
        found["decode"] = pruned.decode_tokens_s / dense.decode_tokens_s
    return found


def constraint_rows(setting: Setting) -> Iterator[Row]:
    """Prune the decoder in the shapes of each engine: what its limits cost in quality."""
    config = read_checkpoint(Path(setting.decoder().model)).config
    ways: dict[str, dict[str, Any]] = {
        "per_layer": {"layout": "per_layer"},
        "vllm-plugin": {"layout": "serve", "engines": ["vllm-plugin"]},
        "llama.cpp": {"layout": "serve", "engines": ["llama.cpp"]},
        "vllm": {"layout": "serve", "engines": ["vllm"]},
        "all": {},
        "stock": {"layout": "stock"},
    }
    for name, artifacts in ways.items():
        if artifacts:
            spec = setting.decoder(**artifacts)
            _folder, report = setting.bundle(name, spec, engines=setting.out / "no-engines")
        else:  # those of MLX, the narrowest
            spec, _folder, report = setting.all_engines()
        limits = limits_of(spec.artifacts, config)
        widths = [layer.kept_neurons for layer in report.layers]
        yield {
            "shapes": name,
            "step": None if limits is None else limits.step,
            "whole_attention": None if limits is None else limits.whole_attention,
            "widths": [min(widths), max(widths)],
            "groups": sum(layer.kept_heads for layer in report.layers),
            "dense_groups": sum(layer.dense_heads for layer in report.layers),
            "macs": report.macs.pruned / report.macs.dense,
            "layers": len(report.layers),
            "dense": report.quality.dense,
            "pruned": report.quality.pruned,
            "ratio": report.quality.pruned / report.quality.dense,
        }


def latency_rows(setting: Setting) -> Iterator[Row]:
    """Prune the decoder to 0.8 of its latency in vLLM, by phase: what the table predicts, and what is measured."""
    for phase in ("prefill", "decode"):
        target = {"metric": "latency", "engine": "vllm", "phase": phase, "keep": 0.8}
        asked = setting.decoder(layout="serve", engines=["vllm"])
        spec = PruneSpec.model_validate(asked.model_dump(exclude_unset=True) | {"target": target})
        row: Row = {"phase": phase, "keep": target["keep"]}
        try:
            _folder, report = setting.bundle(f"latency-{phase}", spec)
        except PruningError as error:
            yield {**row, "reason": str(error)}
            continue
        own = report.target
        yield {
            **row,
            "predicted": own.predicted,
            "achieved": own.achieved,
            "macs": report.macs.pruned / report.macs.dense,
            "dense": report.quality.dense,
            "pruned": report.quality.pruned,
            "seconds": report.seconds.total,
            "profile_seconds": report.seconds.by_stage["profile"],
        }


def encoder_rows(setting: Setting) -> Iterator[Row]:
    """Prune the MiniLM of ``../shared`` as a classifier and as an embedder, and run it in the engines of encoders."""
    source, data = shared_model(setting.shared, "sst2"), setting.shared / "data" / "glue" / "sst2"
    embeds = {"type": "feature-extraction", "columns": {"text": ["sentence"]}, "metric": "cosine"}
    graphs = ["transformers", "onnxruntime", "openvino"]
    cells: tuple[tuple[str, Any, str, list[str]], ...] = (
        ("classes", "glue/sst2", "per_layer", graphs),
        ("embeddings", embeds, "per_layer", [*graphs, "sentence-transformers"]),
        ("embeddings", embeds, "stock", [*graphs, "sentence-transformers"]),
    )
    for name, task, layout, engines in cells:
        spec = PruneSpec.model_validate(
            {
                "model": str(source.resolve()),
                "task": task,
                "data": str(data.resolve()),
                "target": {"metric": "macs", "keep": 0.5},
                "seed": setting.seed,
                "evaluation": {"max_samples": 256},
                "latency": {"batch": 8, "length": 128, "repeats": 5, "threads": setting.threads},
                "artifacts": {"layout": layout, "engines": engines, "formats": ["safetensors", "onnx", "openvino"]},
            }
        )
        _folder, report = setting.bundle(f"minilm-{name}-{layout}", spec)
        for row in report.engines:
            kept = {"model": f"{name}, {layout}", "metric": report.quality.metric, "kept": report.quality.kept}
            yield _engine_row(row.engine, row, **kept)


PARTS: dict[str, tuple[Callable[[Setting], Iterator[Row] | list[Row]], Callable[[Sequence[Row], Console], None]]] = {
    "decoder": (decoder_rows, show_decoder),
    "constraints": (constraint_rows, show_constraints),
    "latency": (latency_rows, show_latency),
    "encoder": (encoder_rows, show_encoder),
}


def _keep(part: str, found: dict[str, Any]) -> None:
    """Write a part into the file of results, beside those of other runs."""
    RESULTS.parent.mkdir(exist_ok=True)
    before = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    RESULTS.write_text(json.dumps({**before, part: found}, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Print the tables of the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="parts to run")
    parser.add_argument("--model", type=Path, help="folder of a decoder that is built like Llama")
    parser.add_argument("--data", type=Path, help="folder with train.jsonl and validation.jsonl, column text")
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder with models/ and data/")
    parser.add_argument("--out", type=Path, help="folder that keeps the bundles, and has those of an earlier run")
    parser.add_argument("--keep", type=float, default=0.7, help="share of the decoder's MACs")
    parser.add_argument("--samples", type=int, default=64, help="calibration samples")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="threads of the engines")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="coppice-engines-") as scratch:
        out = (options.out or Path(scratch)).absolute()
        data = options.data or write_docstrings(out / "docstrings")
        figures = (options.keep, options.samples, options.seed, options.threads)
        setting = Setting(options.model, data, options.shared, out, *figures)
        for part in options.only:
            began = time.monotonic()
            rows = list(PARTS[part][0](setting))
            how = {"keep": options.keep, "samples": options.samples, "seed": options.seed, "threads": options.threads}
            found[part] = {**how, "load": os.getloadavg()[1], "seconds": time.monotonic() - began, "rows": rows}
            _keep(part, found[part])
            PARTS[part][1](rows, Console(width=160))
    print(json.dumps({part: found[part] for part in options.only}))


if __name__ == "__main__":
    main()
