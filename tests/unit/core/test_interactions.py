"""Units that are priced together: their statistics, and a decoder whose optimum is known."""

from __future__ import annotations

import pytest
import torch

from pruning_core.arch.adapter import adapt
from pruning_core.methods.fisher_cg.interactions import joint_importance
from pruning_core.run.pipeline import run
from pruning_core.spec.prune import PruneSpec
from pruning_core.stats.fisher import importance, loss_sum, mask_statistics
from pruning_core.tasks.base import TaskModel
from pruning_core.tasks.batch import Batch
from pruning_core.tasks.registry import family_of
from tests import tiny
from tests.exported import write_llama

NEURONS = 128


def _loaded(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)


def _twins(folder):
    """Write a decoder in which every neuron of the first half has a twin that always says the same, read with other weights."""
    model = _loaded(write_llama(folder, dtype="float32"))
    half = NEURONS // 2
    for layer in model.model.layers:
        layer.mlp.gate_proj.weight[half:] = layer.mlp.gate_proj.weight[:half]
        layer.mlp.up_proj.weight[half:] = layer.mlp.up_proj.weight[:half]
    model.save_pretrained(folder)
    return folder


def _batches():
    ids = torch.randint(5, 60, (6, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, 8:] = 0
    whole = Batch({"input_ids": ids, "attention_mask": mask}, torch.arange(6), ids.masked_fill(mask == 0, -100))
    return [
        Batch({name: own[part] for name, own in whole.inputs.items()}, whole.rows[part], whole.labels[part])
        for part in (slice(0, 2), slice(2, 6))
    ]


def _statistics(model, batches):
    task = TaskModel(model, None, "text-generation", family_of("text-generation"), None, "float32")
    return mask_statistics(
        task,
        adapt(model),
        batches,
        loss_sum("text-generation"),
        samples=6,
        dtype=torch.float32,
        on_batch=lambda _done: None,
        keep_factors=True,
    )


def test_factors_are_the_second_moments_of_inputs_and_gradients_over_real_tokens(tmp_path):
    model, batches = _loaded(write_llama(tmp_path, dtype="float32")), _batches()
    found = _statistics(model, batches)
    seen: dict[str, list[torch.Tensor]] = {"inputs": [], "outputs": []}
    output, family = model.model.layers[1].mlp.down_proj, family_of("text-generation")
    for batch in batches:
        kept = {}

        def keep(_module, args, out, kept=kept):
            kept["in"], kept["out"] = args[0], out.requires_grad_()
            out.retain_grad()

        hook = output.register_forward_hook(keep)
        logits = model(**batch.inputs).logits
        hook.remove()
        family.losses(logits, batch).sum().backward()
        real = batch.real
        seen["inputs"].append(kept["in"][real])
        seen["outputs"].append(kept["out"].grad[real])
    inputs, outputs = (torch.cat(seen[name]).detach() for name in ("inputs", "outputs"))
    own = found[3].factors
    assert own.tokens == len(inputs) == 6 * 12 - 4
    torch.testing.assert_close(own.inputs, inputs.T @ inputs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(own.outputs, outputs.T @ outputs, rtol=1e-4, atol=1e-6)


def test_of_every_pair_of_twins_one_is_dear(tmp_path):
    model = _loaded(_twins(tmp_path))
    statistics = _statistics(model, _batches())
    alone = importance(statistics)
    together = joint_importance(statistics, alone, adapt(model), damping=1e-3, on_sublayer=lambda _done: None)
    for index in (1, 3):  # the FFNs
        stay = set(together[index].topk(NEURONS // 2).indices.tolist())
        pairs = [len(stay & {neuron, neuron + NEURONS // 2}) for neuron in range(NEURONS // 2)]
        by_itself = set(alone[index].topk(NEURONS // 2).indices.tolist())
        both = sum(len(by_itself & {neuron, neuron + NEURONS // 2}) == 2 for neuron in range(NEURONS // 2))
        assert sum(count == 1 for count in pairs) >= 0.9 * NEURONS // 2
        assert both > 10, "the diagonal keeps both twins of many pairs, and neither of as many others"


@pytest.mark.long
def test_a_decoder_whose_optimum_is_known_loses_nothing(tmp_path):
    """Half of the neurons are superfluous: what reads a twin that goes can read the one that stays."""
    model = _twins(tmp_path / "model")
    data = tiny.write_jsonl(tmp_path / "texts")
    fields = {
        "model": str(model),
        "task": {"type": "text-generation", "dataset": str(data), "columns": {"text": ["text"]}, "metric": "loss"},
        # Attention takes a part of the MACs that the budget leaves room for: half of the neurons have to go, or a few less.
        "target": {"metric": "macs", "keep": 0.73},
        "recovery": {"damping": 1e-4},
        "calibration": {"samples": 64, "max_length": 32, "self_written": 1, "precision": "float32"},
        "latency": {"batch": 2, "length": 16, "repeats": 3},
    }
    reports = {}
    for interactions in ("kronecker", "none"):
        method = {"name": "fisher-cg", "interactions": interactions, "representation": 0}
        reports[interactions] = run(PruneSpec.model_validate(fields | {"method": method}), tmp_path / interactions)
    found = reports["kronecker"]
    assert sum(layer.kept_heads for layer in found.layers) == 4
    assert NEURONS <= sum(layer.kept_neurons for layer in found.layers) <= 1.2 * NEURONS
    worse = {name: report.quality.pruned - report.quality.dense for name, report in reports.items()}
    assert abs(worse["kronecker"]) < 1e-4, worse
    assert worse["none"] > 5e-3, worse
