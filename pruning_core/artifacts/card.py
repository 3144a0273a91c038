"""The model card: how the model was pruned, what that cost, and how to load it. Torch-free."""

from __future__ import annotations

import re
from pathlib import Path

from pruning_core.artifacts.loading import display_name, snippets, summary
from pruning_core.artifacts.serving import commands
from pruning_core.report.also import set_named
from pruning_core.report.also_words import set_words
from pruning_core.report.engine_words import conditions, engine_words
from pruning_core.report.latency_words import speedup_words
from pruning_core.report.ledger_words import ledger_sentence, ledger_words
from pruning_core.report.quality_words import difference_words, precision_words
from pruning_core.report.report import Report
from pruning_core.report.sublayers import heads_of
from pruning_core.spec.prune import AUTO_CLASSES, PruneSpec
from pruning_core.spec.sizes import size_text
from pruning_core.spec.storage import STORAGE_TYPES
from pruning_core.spec.targets import TARGET_METRICS
from pruning_core.spec.tasks import KINDS

_LICENCE = re.compile(r"[\w.+\-/ ()]{1,100}", re.ASCII)


def model_card(spec: PruneSpec, report: Report, *, licence: str | None = None) -> str:
    """Write the card as Markdown with the Hub's metadata block.

    A local base model is named by its last path component only, since a server's folders are private.

    Args:
        spec: The request.
        report: The report of the checkpoint.
        licence: The base model's licence; None if it states none.
    """
    latency, quality = report.latency_ms, report.quality
    ways = "\n\n".join(f"{way.title}:\n\n```python\n{way.code}\n```" for way in snippets(spec, report))
    return f"""---
{_metadata(spec, report, licence)}
---

# {_text(display_name(spec.model))}, pruned by Coppice

{_what_was_done(spec, report)}

| | dense | pruned | ratio |
| --- | ---: | ---: | ---: |
| parameters | {report.parameters.dense:,} | {report.parameters.pruned:,} | {report.parameters.pruned / report.parameters.dense:.3f} |
| MACs of the blocks | {report.macs.dense:,} | {report.macs.pruned:,} | {report.macs.pruned / report.macs.dense:.3f} |
{_nonzeros(report)}| bytes of the weights | {report.bytes.dense:,} | {report.bytes.pruned:,} | {report.bytes.pruned / report.bytes.dense:.3f} |
{_compressed(report)}{_exports(report)}| {quality.label} ({quality.samples} validation samples{precision_words(quality)}) | {quality.dense:.4f} | {quality.pruned:.4f} | {quality.pruned - quality.dense:+.4f} |
{_further(report)}| latency, ms (batch {latency.batch}, length {latency.length}, {latency.threads} thread{"s" if latency.threads > 1 else ""}, {latency.device}, {latency.dtype}) | {latency.dense:.2f} | {latency.pruned:.2f} | {speedup_words(latency)} |

{_stored(report)}{_vocabulary(report)}{_difference(report)}Target: {_target(report)}. Seed {report.seed}. Calibration: {report.data.samples} samples{_written(report)},
{report.data.tokens:,} tokens, `{report.data.fingerprint}`. Every number is in `report.json`, and to look at in `report.html`; `manifest.json` has the
sha256 of each file.

Licence: {f"that of the base model, `{licence}`" if licence else "that of the base model, which does not state one in its files; look it up before you use this"}.

{_ledger(report)}{_engines(report)}{_notes(report)}## Load it

{summary(report)}

{ways}
{_serving(spec, report)}{_again(report)}"""


def _target(report: Report) -> str:
    """Write the clause that says what was asked for and achieved."""
    target = report.target
    where = f" {target.where}" if target.where else ""
    by_table = "" if target.predicted is None else f" (predicted by a table measured there: {target.predicted:.4f})"
    achieved = size_text(target.achieved) if TARGET_METRICS[target.metric].absolute else f"{target.achieved:.4f}"
    return f"{target.asked}{where}, achieved {achieved}{by_table}"


def _stored(report: Report) -> str:
    """Write the table of storage types; nothing where all weights are floating-point numbers."""
    if report.storage is None:
        return ""
    rows = "".join(
        f"| {STORAGE_TYPES[row.type].title} | {row.matrices} | {row.weights:,} | {row.bytes:,} |\n"
        for row in report.storage.rows
    )
    said = "Type of each matrix: `storage.types` of `report.json`. The loader turns integers into ordinary weights."
    return f"| stored as | tensors | weights | bytes |\n| --- | ---: | ---: | ---: |\n{rows}\n{said}\n\n"


def _vocabulary(report: Report) -> str:
    """Write the sentence about a cut vocabulary; nothing where it is whole."""
    return "" if report.vocabulary is None else f"Vocabulary: {report.vocabulary.words}.\n\n"


def _difference(report: Report) -> str:
    """Write the sentences that say how sure the differences are; nothing for reports of earlier versions."""
    said = difference_words(report.quality)
    own = f"On the same {report.quality.samples:,} validation samples, {report.quality.metric}: {said}.\n\n" if said else ""
    sets = (f"Set {_text(of_set.name)}: {_text(of_set.said)}.\n\n" for of_set in set_words(report.also) if of_set.said)
    return own + "".join(sets)


def _further(report: Report) -> str:
    """Write the table's rows of further evaluation sets: figures alone; nothing where there are none."""
    return "".join(
        f"| set {_text(own.name)}: {_text(own.measure)} | {own.dense} | {own.pruned} | {_difference_of(report, own.name)} |\n"
        for own in set_words(report.also)
    )


def _difference_of(report: Report, name: str) -> str:
    own = set_named(report.also, name)
    if own is None or own.quality is None:
        return "not judged"
    return f"{own.quality.pruned - own.quality.dense:+.4f}"


def _what_was_done(spec: PruneSpec, report: Report) -> str:
    """Write the sentence that says how the model was pruned."""
    training, healing = report.training, report.healing
    trained = "without retraining" if healing is None else healing.done
    if training is not None:
        trained = f"then trained for {training.epochs:g} epochs on {training.rows:,} rows"
    named = "" if spec.preset is None else f", with the settings of preset `{spec.preset}`"
    how = f"by `{report.method}` (recovery: `{report.recovery}`){named}, {trained}, for task `{report.task}`"
    if report.pattern is None:
        return f"{_what_is_gone(report)} {how}."
    return f"Weights of every linear layer of the blocks were set to zero {how}: `{report.pattern.pattern}`. All shapes are the base model's."


def _what_is_gone(report: Report) -> str:
    """Write the start of the sentence: heads, neurons, experts and whole layers, as far as any are gone."""
    whole = sum(not layer.kept_heads and not layer.kept_neurons for layer in report.layers)
    rest = [layer for layer in report.layers if layer.kept_heads or layer.kept_neurons]
    absent = sum(layer.lost_attention for layer in rest)
    heads, dense_heads = heads_of([layer for layer in rest if not layer.lost_attention])
    what = "whole experts" if any(layer.experts for layer in rest) else "neurons"
    gone = [
        *(["heads"] if heads < dense_heads else []),
        *([what] if any(layer.kept_neurons < layer.dense_neurons for layer in rest) else []),
        *([f"{absent} whole attention{'s' if absent > 1 else ''}"] if absent else []),
        *([f"{whole} whole layer{'s' if whole > 1 else ''}"] if whole else []),
    ]
    if not gone:
        return "No heads and no neurons were removed"
    listed = " and ".join((", ".join(gone[:-1]), gone[-1])) if len(gone) > 1 else gone[0]
    was = "was" if gone in (["1 whole layer"], ["1 whole attention"]) else "were"
    return f"{listed[0].upper()}{listed[1:]} {was} removed"


def _serving(spec: PruneSpec, report: Report) -> str:
    """Write the section of the commands that serve the bundle; nothing where there are none."""
    ways = "\n\n".join(f"{way.title}:\n\n```sh\n{way.code}\n```" for way in commands(spec, report))
    return f"\n## Serve it\n\nIn this folder:\n\n{ways}\n" if ways else ""


def _again(report: Report) -> str:
    """Write the section of the command that makes the bundle again; nothing for reports of earlier versions."""
    again = report.reproduction
    if again is None:
        return ""
    return f"\n## Make it again\n\n{again.words}\n\n```sh\n{again.command}\n```\n"


def _written(report: Report) -> str:
    count = report.data.self_written
    return f" ({count} of them written by the dense model itself)" if count else ""


def _nonzeros(report: Report) -> str:
    """Write the table's rows of nonzero weights and MACs; nothing for methods that set no zeros."""
    pattern = report.pattern
    if pattern is None:
        return ""
    kept = pattern.prunable_weights - pattern.zeros
    return (
        f"| weights of the blocks that are not zero | {pattern.prunable_weights:,} | {kept:,} | {kept / pattern.prunable_weights:.3f} |\n"
        f"| MACs where zeros are skipped | {report.macs.dense:,} | {pattern.nonzero_macs:,} | {pattern.nonzero_macs / report.macs.dense:.3f} |\n"
    )


def _compressed(report: Report) -> str:
    """Write the table's row of the compressed form; nothing if there is none."""
    if report.compressed is None or report.compressed.bytes is None:
        return ""
    share = report.compressed.bytes / report.bytes.dense
    return f"| bytes, compressed (`{report.compressed.path}/`) | {report.bytes.dense:,} | {report.compressed.bytes:,} | {share:.3f} |\n"


def _exports(report: Report) -> str:
    """Write the table's rows of further forms; nothing where there is none."""
    rows = [
        (row, row.bytes, row.dense_bytes or report.bytes.dense) for row in report.exports if row.status == "ok" and row.bytes
    ]
    return "".join(
        f"| bytes, {f'{row.format} {row.kind}'.strip()} (`{row.path}`) | {dense:,} | {size:,} | {size / dense:.3f} |\n"
        for row, size, dense in rows
    )


def _engines(report: Report) -> str:
    """Write the table of engines; nothing if none was asked for."""
    if not report.engines:
        return ""
    rows = "".join(
        f"| {_text(row.engine)} | {_text(row.found)} | {_text(row.agreement)} | {_text(row.speed)} |\n"
        for row in engine_words(report.engines)
    )
    return f"## Engines\n\n| engine | | agreement with transformers | dense to pruned |\n| --- | --- | --- | --- |\n{rows}{_conditions(report)}\n"


def _ledger(report: Report) -> str:
    """Write the section of capabilities beside the task: figures alone; nothing if none was asked for."""
    if report.ledger is None:
        return ""
    rows = "".join(
        f"| {_text(row.subject)} | {_text(row.title)} | {row.rows} | {row.figures} | {row.interval} | {_text(row.verdict)} |\n"
        for row in ledger_words(report.ledger)
    )
    head = "| on | judged by | rows | dense → pruned | difference, 95 % | |\n| --- | --- | --- | --- | --- | --- |\n"
    return f"## What it can still do\n\n{_text(ledger_sentence(report.ledger))}\n\n{head}{rows}\n"


def _conditions(report: Report) -> str:
    said = conditions(report)
    return f"\n{said}\n" if said else ""


def _notes(report: Report) -> str:
    """Write the section of the run's warnings; nothing if there are none."""
    listed = "".join(f"- {_text(warning)}\n" for warning in report.warnings)
    return f"## Worth knowing\n\n{listed}\n" if listed else ""


def _text(words: str) -> str:
    """Return text that may have a stranger's words, such as names of labels, so that Markdown and HTML read it as text."""
    one_line = "".join(sign if sign.isprintable() else " " for sign in words)
    return re.sub(r"([\\\[\]|`])", r"\\\1", one_line).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def base_licence(folder: Path) -> str | None:
    """Read the licence from the metadata of a checkpoint's own card; None if it states none."""
    import yaml
    from huggingface_hub import metadata_load

    try:
        metadata = metadata_load(folder / "README.md")
    except (OSError, ValueError, yaml.YAMLError):
        return None
    stated = (metadata or {}).get("license")
    return stated if isinstance(stated, str) and _LICENCE.fullmatch(stated) else None


def _metadata(spec: PruneSpec, report: Report, licence: str | None) -> str:
    """Write the Hub's metadata block: the task of the model, and its results as a model index."""
    from huggingface_hub import EvalResult, ModelCardData

    quality, pipeline = report.quality, KINDS[spec.task.type].pipeline
    name = display_name(spec.model)
    data = ModelCardData(
        base_model=spec.model if name == spec.model else None,
        library_name="sentence-transformers" if AUTO_CLASSES[spec.task.type] == "AutoModel" else "transformers",
        license=licence,
        pipeline_tag=pipeline,
        tags=["pruned", "coppice", report.method],
        model_name=f"{name}, pruned",
        eval_results=[
            EvalResult(
                task_type=pipeline,
                dataset_type=display_name(spec.task.dataset),
                dataset_name=report.task,
                dataset_split=spec.task.validation_split,
                metric_type=quality.metric,
                metric_value=round(quality.pruned, 4),
            )
        ],
    )
    return data.to_yaml().strip()
