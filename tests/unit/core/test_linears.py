"""Statistics of every linear, against explicit inputs and gradients of each of them."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from pruning_core.arch.adapter import adapt
from pruning_core.data.read import read_rows
from pruning_core.evidence.calibration import tokenise
from pruning_core.evidence.states import DenseStates
from pruning_core.models.load import load_task_model
from pruning_core.stats.linears import linear_statistics
from pruning_core.tasks.batch import Batch
from tests import tasks, tiny


@pytest.fixture(scope="module")
def setting(tiny_bert, tiny_sst2):
    """A model, its linears by name, and a few batches."""
    model = load_task_model(tiny_bert, "text-classification", torch.device("cpu"))
    rows = read_rows(tiny.tiny_spec(tiny_bert, tiny_sst2).task, "train")
    tokens = tokenise(model, rows, max_length=16, batch_tokens=128, longest=24)
    return model, adapt(model.model).linears, tokens.batches


def objective(outputs, _batch):
    return (outputs[:, 1] - outputs[:, 0]).sum()


@pytest.mark.parametrize("length", [1, 8, 12])
def test_covariances_and_output_weights_are_those_of_the_model_itself(setting, length):
    model, linears, batches = setting
    states = DenseStates(adapt(model.model), batches, 2**24)
    found = linear_statistics(
        model,
        linears,
        dict.fromkeys(linears, length),
        batches,
        objective,
        dtype=torch.float32,
        on_batch=lambda _done: None,
        states=states,
    )
    inputs = {name: [] for name in linears}
    gradients = {name: [] for name in linears}
    for batch in batches:
        outputs: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

        def keep(_module, args, out, *, name, outputs=outputs):
            outputs[name] = (args[0], out)

        handles = [own.register_forward_hook(partial(keep, name=name)) for name, own in linears.items()]
        model.model.requires_grad_(True)
        value = objective(model.outputs(batch.inputs), batch)
        wanted = torch.autograd.grad(value, [out for _, out in outputs.values()])
        model.model.requires_grad_(False)
        for handle in handles:
            handle.remove()
        for (name, (read, _)), gradient in zip(outputs.items(), wanted, strict=True):
            inputs[name].append(read.detach()[batch.real])
            gradients[name].append(gradient[batch.real])
    for name in linears:
        X = torch.cat(inputs[name]).double()
        covariance = (X - X.mean(0)).T @ (X - X.mean(0)) / len(X)
        for run, block in enumerate(found[name].covariances):
            own = covariance[run * length : (run + 1) * length, run * length : (run + 1) * length]
            torch.testing.assert_close(block[: len(own), : len(own)].double(), own, rtol=1e-3, atol=1e-4)
        squares = torch.cat(gradients[name]).square().sum(0)
        torch.testing.assert_close(found[name].output_weights, squares, rtol=1e-3, atol=float(squares.max()) * 1e-4)


def test_each_half_of_a_model_with_two_counts_its_own_tokens_even_where_there_are_as_many(tmp_path):
    """Cross-attention's keys read the encoder's output, its queries the decoder's tokens."""
    folder = tasks.write_task_model(tmp_path / "model", "summarization")
    model = load_task_model(folder, "summarization", torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 60, (3, 8), generator=generator)
    real, written = (torch.arange(8) < torch.tensor(counts)[:, None] for counts in ([8, 5, 3], [2, 8, 6]))
    inputs = {"input_ids": ids, "attention_mask": real.long(), "decoder_input_ids": ids.flip(1)}
    batch = Batch(inputs | {"decoder_attention_mask": written.long()}, torch.arange(3), None, real)
    adapter = adapt(model.model)
    linears, read = adapter.linears, {}
    handles = [
        own.register_forward_pre_hook(lambda _module, args, name=name: read.update({name: args[0]}))
        for name, own in linears.items()
    ]
    found = linear_statistics(
        model,
        linears,
        dict.fromkeys(linears, 4),
        [batch],
        lambda outputs, _batch: outputs.square().sum(),
        dtype=torch.float32,
        on_batch=lambda _done: None,
        states=DenseStates(adapter, [batch], 2**24),
        written=adapter.written,
    )
    for handle in handles:
        handle.remove()
    for name, values in read.items():
        decodes = name.startswith("decoder.") and not name.endswith(("EncDecAttention.k", "EncDecAttention.v"))
        X = values.detach()[written if decodes else real].double()
        covariance = (X - X.mean(0)).T @ (X - X.mean(0)) / len(X)
        torch.testing.assert_close(found[name].covariances[0].double(), covariance[:4, :4], rtol=1e-3, atol=1e-4)
