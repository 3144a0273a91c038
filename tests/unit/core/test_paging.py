"""Blocks whose weights lie in files until they run."""

from __future__ import annotations

import copy
import weakref
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from pruning_core.arch.adapter import adapt, clone
from pruning_core.arch.paging import device_map, each_tensor, held, page_of
from pruning_core.arch.verify import verify
from pruning_core.files.checkpoint import read_checkpoint
from pruning_core.files.tensors import map_tensors, write_tensors
from pruning_core.models.load import load_task_model
from pruning_core.run.pipeline import run
from tests import tiny
from tests.families import ARCHITECTURES

CPU = torch.device("cpu")


def inputs(device: torch.device = CPU) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    given = {"input_ids": torch.randint(5, 60, (4, 12), generator=generator), "attention_mask": torch.ones(4, 12).long()}
    return {name: values.to(device) for name, values in given.items()}


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))]


@pytest.fixture(params=["float32", "bfloat16"])
def stored(request: pytest.FixtureRequest, tiny_bert: Path, tmp_path: Path) -> Path:
    """A checkpoint whose weights are used as they lie in the file, and one whose weights are converted."""
    if request.param == "float32":
        return tiny_bert
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(tiny_bert, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "half")
    tiny.write_tokenizer(tmp_path / "half")
    return tmp_path / "half"


@pytest.fixture(params=DEVICES)
def pair(request: pytest.FixtureRequest, stored: Path, tmp_path: Path):
    """The same model with its weights in memory, and paged."""
    device = torch.device(request.param)
    return load_task_model(stored, "text-classification", device), load_task_model(
        stored, "text-classification", device, pages=tmp_path
    )


def test_what_was_written_is_read_whatever_its_size_and_type(tmp_path: Path):
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "odd": torch.randn(3, 5, generator=generator),
        "none": torch.empty(0, 4),
        "half": torch.randn(7, generator=generator).bfloat16(),
        "bytes": torch.arange(3, dtype=torch.uint8),
        "turned": torch.randn(4, 6, generator=generator).T,
    }
    mapped = write_tensors(tensors.items(), tmp_path)
    assert not list(tmp_path.iterdir()), "the file has no name"
    for name, tensor in tensors.items():
        assert torch.equal(mapped[name].mapped(), tensor)
        assert torch.equal(mapped[name].read(CPU), tensor.float())
        mapped[name].forget()
        assert torch.equal(mapped[name].mapped(), tensor), "what was given back to the system is read again"


def test_tensors_at_odd_addresses_of_a_checkpoint_are_read(tmp_path: Path):
    from safetensors.torch import save_file

    b, c = torch.randn(1007, generator=torch.Generator().manual_seed(0)).split([1005, 2])
    tensors = {"a": torch.arange(3, dtype=torch.uint8), "b": b.clone(), "c": c.half()}
    tiny.write_model(tmp_path, "bert")
    save_file(tensors, tmp_path / "model.safetensors")
    mapped = map_tensors(read_checkpoint(tmp_path))
    assert all(torch.equal(mapped[name].mapped(), tensor) for name, tensor in tensors.items())


def test_weights_are_there_while_a_block_is_held_and_not_else(pair):
    whole, paged = (adapt(model.model).sublayers[1] for model in pair)
    assert paged.output.weight.is_meta
    assert paged.output.weight.shape == whole.output.weight.shape
    with held(paged.block), held(paged.block):
        assert torch.equal(paged.output.weight, whole.output.weight)
    assert paged.output.weight.is_meta


def test_a_paged_model_gives_what_the_whole_one_gives(pair):
    whole, paged = pair
    with torch.no_grad():
        assert torch.equal(whole.outputs(inputs(whole.device)), paged.outputs(inputs(whole.device)))
    verify(adapt(paged.model), inputs(whole.device))
    assert all(parameter.is_meta for page in map(page_of, adapt(paged.model).blocks) for parameter in _weights(page))


def test_gradients_are_the_same_and_the_graph_keeps_no_weights(pair):
    gradients = []
    for model in pair:
        sublayers = adapt(model.model).sublayers
        found: list[torch.Tensor] = []
        used: list[weakref.ref[torch.Tensor]] = []

        def enter(_module, args, found=found):
            found.append(args[0].detach().requires_grad_())
            return tuple(found)

        def note(module, _args, used=used):
            used.append(weakref.ref(module.weight))

        with ExitStack() as stack:
            stack.callback(sublayers[0].output.register_forward_pre_hook(enter).remove)
            stack.callback(sublayers[3].output.register_forward_pre_hook(note).remove)
            output = model.outputs(inputs(model.device))
        assert (used[0]() is None) == (model.pages is not None)
        gradients.append(torch.autograd.grad(output.sum(), found)[0])
    assert torch.equal(*gradients)


def test_what_a_held_block_is_given_is_written_and_copies_go_their_own_ways(pair):
    _, paged = pair
    student = clone(paged.model)
    dense, own = adapt(paged.model).sublayers[1], adapt(student).sublayers[1]
    kept = torch.arange(0, dense.units, 2)
    with held(own.block):
        own.slice_(kept)
        sliced = own.output.weight.clone()
    assert own.output.weight.is_meta
    assert own.output.weight.shape == sliced.shape
    again = copy.deepcopy(student)
    with held(adapt(again).blocks[0], dense.block):
        assert torch.equal(adapt(again).sublayers[1].output.weight, sliced)
        assert torch.equal(dense.output.weight[:, kept], sliced)


def test_the_state_is_given_whole(pair):
    whole, paged = pair
    state = dict(each_tensor(paged.model))
    assert list(state) == list(whole.model.state_dict())
    assert all(torch.equal(tensor.cpu(), state[name].cpu()) for name, tensor in whole.model.state_dict().items())


def test_blocks_are_left_on_the_disk_and_all_else_is_placed(pair):
    _, paged = pair
    places = device_map(paged.model, paged.device)
    assert {path for path, place in places.items() if place == "disk"} == {
        f"bert.encoder.layer.{i}" for i in range(tiny.LAYERS)
    }
    assert all(any(f"{name}.".startswith(f"{path}.") for path in places) for name, _ in paged.model.named_parameters())


def _weights(page):
    assert page is not None
    return [linear.weight for linear in page.linears]


_METHODS = {
    "fisher-cg": {"method": "fisher-cg"},
    "magnitude": {"method": "magnitude"},
    "admm-pattern": {"method": "admm-pattern", "artifacts": {"layout": "stock", "formats": ["safetensors"]}},
    "pool": {
        "method": {"name": "admm-pattern", "pattern": "4x4:8", "pool": 8},
        "artifacts": {"layout": "stock", "formats": ["safetensors"]},
    },
    "block-lasso": {
        "method": "block-lasso",
        "target": {"metric": "sparsity", "sparsity": 0.5, "tolerance": 0.1},
        "artifacts": {"formats": ["safetensors"]},
    },
}
_SHARDED = {"shard_mb": 1}


def _check_same_bundle(architecture: str, method: str, tmp_path: Path, data: Path) -> None:
    model = ARCHITECTURES[architecture].write(tmp_path / "model")
    changes = dict(_METHODS[method])
    if method in ("admm-pattern", "pool"):
        changes["target"] = None
    artifacts = {**changes.pop("artifacts", {}), **_SHARDED}
    for weights in ("resident", "paged"):
        spec = tiny.tiny_spec(model, data, memory={"weights": weights}, artifacts=artifacts, **changes)
        report = run(spec, tmp_path / weights, device="cpu", threads=1)
        assert report.memory is not None
        assert report.memory.weights == weights
    for path in (tmp_path / "resident").iterdir():
        if path.suffix in (".safetensors", ".py") or path.name in ("config.json", "generation_config.json"):
            assert path.read_bytes() == (tmp_path / "paged" / path.name).read_bytes(), path.name


@pytest.mark.long
def test_the_bundle_is_the_same_bit_by_bit(tmp_path: Path, tiny_sst2: Path):
    _check_same_bundle("llama", "fisher-cg", tmp_path, tiny_sst2)


@pytest.mark.matrix
@pytest.mark.parametrize("method", sorted(_METHODS))
@pytest.mark.parametrize("architecture", ["bert", "llama", "gpt2", "t5", "bart", "mpnet", "deberta-v3", "modernbert"])
def test_bundles_of_all_methods_and_architectures_are_the_same(architecture: str, method: str, tmp_path: Path, tiny_sst2: Path):
    _check_same_bundle(architecture, method, tmp_path, tiny_sst2)
