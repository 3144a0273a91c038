"""How long a job takes: counts of operations over the rates of an ordinary host, and what processes take to start. Torch-free.

The estimate is coarse, as hosts differ by more than a factor of two. It serves to choose a time-out, and to see which wish
costs the most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.data.ledger_texts import BLOCK
from pruning_core.engines.refusing import reason_of
from pruning_core.engines.registry import ENGINES, EngineFacts, use_of
from pruning_core.files.checkpoint import CheckpointFacts
from pruning_core.spec.artifacts import FLOOR_TRIALS, Format
from pruning_core.spec.calibration import texts_side_by_side
from pruning_core.spec.engine_targets import in_engines
from pruning_core.spec.ledger import DECODERS, LedgerSpec
from pruning_core.spec.options import ZeroingOptions
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.tasks import KINDS

# An ordinary host: operations a second with all cores and with one, bytes a second from memory and to a disk, and seconds until
# torch is imported and a small model is loaded, here and in the proof.
_FLOPS = 2e11
_FLOPS_OF_ONE_THREAD = 4e10
_MEMORY_BYTES_S = 1e10
_DISK_BYTES_S = 2e8
_STARTUP_S = 12

MEAN_SHARE = 0.25  # length of a typical sample as a share of the longest allowed
_TYPICAL_EVALUATION = 1000
# Passes over the calibration samples, counted in forward passes: scores with a backward (3), the dense stream (1), repair (2).
_PASSES = 6
_PASSES_OF_A_REPAIR = 2
# Passes of a training row: the forward of the dense model, that of the student, and its backward (as long as two forwards).
_PASSES_OF_A_STEP = 4
_JUDGING = 0.2  # share of the time of healing
_TYPICAL_TRAINING = 10_000  # rows of a training split of unknown size
_STEPS_OF_A_RHO = 4

# The ledger, as `measure.ledger` makes it: texts of its own, cloze items, continuations, pieces.
TEXTS_OF_DECODERS, TEXTS_OF_EMBEDDERS = 4, 3
CLOZE_CHOICES, CLOZE_TOKENS = 4, 40
WRITTEN_TOKENS = 48
_GROUPS_OF_PROMPTS = 4  # of equal length, written together
_HALF_TOKENS = 32  # of 24 words
_MADE_S = 3  # reading Python's own library
_HARNESS_S = 15  # importing lm-eval
_LAYER_S = 1e-3  # of one step of writing, whatever the width

# The proof in engines, as `artifacts.engines.inputs` makes it: what is scored, continued and timed, each of both models.
SCORED_TEXTS, SCORED_TOKENS = 20, 64
CONTINUED, CONTINUED_TOKENS = 2, 32
TIMED_PROMPT, TIMED_TOKENS, TURNS = 128, 16, 3
_PASSES_OF_A_TURN = 3
# Stacks of a table that is measured in an engine, in times of its start.
_TABLE_STARTS = 1.5

# Seconds to make and prove a small file of a format.
_FORMATS_S: Mapping[Format, float] = {"onnx": 8, "openvino": 8, "gguf": 5, "compressed-tensors": 5, "compressed": 1}


@dataclass(frozen=True, slots=True)
class Model:
    """What is known of a model's cost.

    Attributes:
        groups: Its prunable units.
        vocabulary: Multiply-accumulates that the scores of one token over the vocabulary take; 0 where there are none.
        weight_bytes: Bytes of its weights in four-byte numbers.
    """

    groups: tuple[UnitGroup, ...]
    vocabulary: int
    weight_bytes: int

    @classmethod
    def of(cls, spec: PruneSpec, groups: tuple[UnitGroup, ...], facts: CheckpointFacts) -> Model:
        """Read it from the files of a checkpoint."""
        writes = KINDS[spec.task.type].loads_as in ("AutoModelForCausalLM", "AutoModelForMaskedLM", "AutoModelForSeq2SeqLM")
        entries = facts.config.get("vocab_size")
        scores = entries * groups[0].hidden if writes and isinstance(entries, int) else 0
        # A stranger's configuration may say any number; the files hold no more than their parameters.
        return cls(groups, max(0, min(scores, facts.parameters)), 4 * facts.parameters)

    def forward(self, length: float) -> float:
        """Count the operations of one sequence."""
        units = sum(group.macs_per_unit(length) * group.size + group.fixed_macs(length) for group in self.groups)
        return 2 * (units + self.vocabulary * length)

    @property
    def step_s(self) -> float:
        """Seconds of one step of writing: every weight is read, and every layer called."""
        layers = len({group.layer for group in self.groups})
        return self.weight_bytes / _MEMORY_BYTES_S + _LAYER_S * layers


@dataclass(frozen=True, slots=True)
class Seconds:
    """The parts of a job's time.

    Attributes:
        work: Loading, calibration, pruning and repair, the task's evaluation, latency, and the proof.
        further: Further evaluation sets.
        ledger: The ledger of capabilities.
        formats: Further formats of the bundle.
        engines: Tables and proofs in engines, as if each were installed where the job runs.
        healing: Healing of all checkpoints: its budget, or what its steps take.
    """

    work: float
    further: float
    ledger: float
    formats: float
    engines: float
    healing: float = 0.0

    @property
    def total(self) -> float:
        """All of them."""
        return round(self.work + self.further + self.ledger + self.formats + self.engines + self.healing, 1)


def seconds_of(spec: PruneSpec, groups: tuple[UnitGroup, ...], facts: CheckpointFacts) -> Seconds:
    """Estimate how long a job takes, from its spec and the files of its model."""
    model = Model.of(spec, groups, facts)
    return Seconds(
        work=_work(spec, model),
        further=_further(spec, model),
        ledger=_ledger(spec, model, spec.evaluation.ledger),
        formats=_formats(spec, facts.weight_bytes),
        engines=_engines(spec, model, facts),
        healing=_checkpoints(spec) * healing_s(spec, model),
    )


def _checkpoints(spec: PruneSpec) -> int:
    return max(1, len(spec.all_targets))


def _work(spec: PruneSpec, model: Model) -> float:
    options = spec.calibration
    share = options.written_share(spec.task.type, paged=spec.memory.weights == "paged")
    calibration = (1 + share) * options.samples * model.forward(MEAN_SHARE * options.max_length)
    # Texts are written token by token, some of them side by side.
    turns = -(-share * options.samples // texts_side_by_side(options.max_length))
    writing = turns * options.max_length * model.step_s
    rows = spec.evaluation.max_samples or _TYPICAL_EVALUATION
    evaluation = 2 * rows * model.forward(MEAN_SHARE * spec.evaluation.max_length)
    solves = sum((group.size * group.unit_width) ** 3 for group in model.groups if group.repairable)
    timed = 2 * spec.latency.usual_repeats * spec.latency.batch * model.forward(spec.latency.length)
    threads = min(_FLOPS, _FLOPS_OF_ONE_THREAD * spec.latency.threads)
    scored = (_PASSES - _PASSES_OF_A_REPAIR) * calibration
    repaired = len(spec.all_targets) or FLOOR_TRIALS  # number of checkpoints that are made and evaluated
    work = scored + repaired * (_PASSES_OF_A_REPAIR * calibration + evaluation + solves)
    if spec.method.zeroing is not None:
        work += repaired * _zeroing(spec, spec.method.zeroing, model)
    return _STARTUP_S + writing + work / _FLOPS + _checkpoints(spec) * timed / threads


def _zeroing(spec: PruneSpec, method: ZeroingOptions, model: Model) -> float:
    """Estimate the operations of zeroing: products of ADMM and of the refits, factors where rho changes, and the training."""
    steps = 2 * method.steps + (method.iterations if method.selection == "admm" else 0)
    factors = 1 + (method.iterations / _STEPS_OF_A_RHO if method.selection == "admm" else 0)
    found = 0.0
    for group in model.groups:
        width, hidden = group.size * group.unit_width, group.hidden
        readers = 3 if group.unit_width > 1 else 1
        found += readers * (2 * steps * hidden**2 * width + factors * hidden**3)
        found += 2 * steps * width**2 * hidden + factors * width**3
    if method.tier == "trained":
        rows = method.training.epochs * (method.training.max_train_rows or _TYPICAL_TRAINING)
        found += rows * _PASSES_OF_A_STEP * model.forward(MEAN_SHARE * spec.calibration.max_length)
    return found


def step_of_healing_s(spec: PruneSpec, model: Model) -> float:
    """Estimate the seconds of one step of healing: the dense model, the student, and its backward pass."""
    heal = spec.recovery.heal
    length = heal.max_length or spec.calibration.max_length
    whole = 1.0 if spec.task.type == "text-generation" else MEAN_SHARE  # blocks are full
    return heal.training(spec.task.type).batch_size * _PASSES_OF_A_STEP * model.forward(whole * length) / _FLOPS


def healing_s(spec: PruneSpec, model: Model) -> float:
    """Estimate the seconds of the healing of one checkpoint; judgements of given steps take a fifth as long as they do."""
    heal = spec.recovery.heal
    if not heal.heals:
        return 0.0
    if heal.steps is None:
        return 60 * heal.minutes
    return (1 + _JUDGING) * heal.steps * step_of_healing_s(spec, model)


def _further(spec: PruneSpec, model: Model) -> float:
    """Estimate the further sets: the dense model once, each checkpoint once. Trials of a search are not judged on them."""
    evaluation = spec.evaluation
    rows = sum(own.max_samples or evaluation.max_samples or _TYPICAL_EVALUATION for own in evaluation.also)
    return (1 + _checkpoints(spec)) * rows * model.forward(MEAN_SHARE * evaluation.max_length) / _FLOPS


def _ledger(spec: PruneSpec, model: Model, ledger: LedgerSpec | None) -> float:
    """Estimate the ledger: the dense model once, each checkpoint once. A folder of lm-eval counts as one task."""
    if ledger is None:
        return 0.0
    named, passes = len(ledger.texts), 1 + _checkpoints(spec)
    if spec.task.type not in DECODERS:
        halves = 2 * ledger.items * (TEXTS_OF_EMBEDDERS + named)
        return _MADE_S + passes * halves * model.forward(_HALF_TOKENS) / _FLOPS
    blocks = ledger.items * (TEXTS_OF_DECODERS + named) * model.forward(BLOCK)
    items = ledger.items * (1 + named + (ledger.lm_eval is not None))
    work = blocks + items * CLOZE_CHOICES * model.forward(CLOZE_TOKENS)
    writing = _GROUPS_OF_PROMPTS * WRITTEN_TOKENS * model.step_s
    return _MADE_S + (_HARNESS_S if ledger.lm_eval is not None else 0) + passes * (work / _FLOPS + writing)


def _formats(spec: PruneSpec, weight_bytes: int) -> float:
    asked = spec.artifacts
    files = {"gguf": len(asked.gguf), "onnx": len(asked.onnx)}
    written = 2 * weight_bytes / _DISK_BYTES_S  # and read again
    each = sum(files.get(name, 1) * (_FORMATS_S[name] + written) for name in asked.formats if name in _FORMATS_S)
    return _checkpoints(spec) * each


def _engines(spec: PruneSpec, model: Model, facts: CheckpointFacts) -> float:
    """Estimate the engines that take the bundle, and the tables that targets have measured in theirs."""
    runs = [ENGINES[name] for name in spec.artifacts.engines if reason_of(ENGINES[name], spec, facts.config) is None]
    tables = {name for _target, name in in_engines(spec.all_targets)}
    measured = sum(_TABLE_STARTS * ENGINES[name].start_s for name in tables)
    return measured + _checkpoints(spec) * sum(_proof(engine, spec, model) for engine in runs)


def _proof(engine: EngineFacts, spec: PruneSpec, model: Model) -> float:
    """Estimate the proof of one checkpoint in one engine: its start, the texts or probes, and the turns of both models."""
    models = 2 * (1 + TURNS)  # dense and pruned in turns, once to warm up
    threads = min(_FLOPS, _FLOPS_OF_ONE_THREAD * spec.latency.threads)
    if use_of(spec.task.type) != "generation":
        passes = models * _PASSES_OF_A_TURN * spec.latency.batch * model.forward(spec.latency.length)
        return engine.start_s + passes / threads
    read = SCORED_TEXTS * model.forward(SCORED_TOKENS) + 2 * models * model.forward(TIMED_PROMPT)
    steps = CONTINUED * CONTINUED_TOKENS + models * TIMED_TOKENS
    if engine.loads in ("onnx", "openvino"):  # without a cache: each token takes a pass over all before it
        return engine.start_s + (read + steps * model.forward(TIMED_PROMPT)) / threads
    return engine.start_s + read / threads + steps * model.step_s
