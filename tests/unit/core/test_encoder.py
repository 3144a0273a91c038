import pytest
import torch

from pruning_core.arch.adapter import adapt, clone
from pruning_core.arch.verify import verify
from pruning_core.errors import UnsupportedArchitecture
from tests import tiny
from tests.oracles import masked


def _inputs():
    ids = torch.randint(5, 60, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    ids[1, 6:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_halves_compute_what_the_model_computes(family):
    verify(adapt(tiny.build_model(family)), _inputs())


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("seed", range(2))
def test_slicing_equals_masking(family, seed):
    model = tiny.build_model(family)
    adapter, student = adapt(model), adapt(clone(model))
    generator = torch.Generator().manual_seed(seed)
    kept = [torch.rand(group.size, generator=generator) > 0.5 for group in adapter.groups]
    for flags, group in zip(kept, adapter.groups, strict=True):
        flags[0] |= group.kind == "head"
    kept[1][:] = False  # an FFN that vanishes altogether
    for sublayer, flags in zip(student.sublayers, kept, strict=True):
        sublayer.slice_(flags.nonzero().flatten())
    with torch.no_grad(), masked(adapter, tuple(flags.float() for flags in kept)):
        by_masks = model(**_inputs()).logits
    with torch.no_grad():
        sliced = student.model(**_inputs()).logits
        dense = model(**_inputs()).logits
    torch.testing.assert_close(sliced, by_masks, rtol=1e-5, atol=1e-5)
    assert (dense - by_masks).abs().max() > 1e-3, "the mask must matter for this test to mean something"
    assert [group.size for group in student.groups] == [int(flags.sum()) for flags in kept]


def test_a_clone_shares_weights_until_it_is_sliced_and_never_changes_the_original():
    model = tiny.build_model("bert")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    copy = clone(model)
    assert copy.get_input_embeddings().weight is model.get_input_embeddings().weight
    for sublayer in adapt(copy.requires_grad_(False)).sublayers:
        sublayer.slice_(torch.arange(sublayer.units))  # keeping everything gives weights of its own too
        for linear in (*sublayer.inputs, sublayer.output):
            linear.weight.zero_()
            linear.bias.zero_()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_a_look_alike_that_computes_something_else_is_refused():
    model = tiny.build_model("bert")
    attention = model.bert.encoder.layer[0].attention.self
    attention.scaling *= 1.5
    forward = attention.forward
    attention.forward = lambda hidden, *args, **kwargs: forward(hidden * 2, *args, **kwargs)
    with pytest.raises(UnsupportedArchitecture, match="computes something else"):
        verify(adapt(model), _inputs())


def test_a_model_without_blocks_is_refused():
    import transformers

    config = transformers.FNetConfig(hidden_size=16, num_hidden_layers=1, intermediate_size=8, vocab_size=50)
    with pytest.raises(UnsupportedArchitecture, match="fnet"):
        adapt(transformers.FNetModel(config))
