"""One budget of bytes for widths and types: the allocation against brute force, rounding, and bundles end to end."""

import itertools
import json

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

import pruning_core.checks.method as checks_of_method
import pruning_core.methods.storage as storage_plans
import pruning_core.stats.rounding as rounding_losses
from pruning_core.arch.unit_costs import UnitGroup
from pruning_core.checks.request import check_local_inputs
from pruning_core.errors import ModelUnreadable, TargetUnreachable
from pruning_core.files.checkpoint import read_checkpoint
from pruning_core.linalg.rounding import round_compensated, round_nearest
from pruning_core.models.load import load_task_model
from pruning_core.plugin.per_layer import unround
from pruning_core.run.pipeline import run
from pruning_core.search.storage import Matrix, Stock, allocate, counts_of
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.sizes import read_size, size_text
from pruning_core.spec.storage import STORAGE_TYPES
from tests import families, tasks, tiny

GROUPS = (UnitGroup(0, "head", 3, 8, 64, 2048, 2048), UnitGroup(0, "neuron", 4, 1, 64, 128, 128))
ALL = tuple(STORAGE_TYPES)


def _stock(generator, groups=GROUPS):
    """Two matrices for each group, and one beside them; the coarser a type, the larger the loss."""
    shapes = [(64, group.size * 32, index, "columns") for index, group in enumerate(groups)]
    shapes += [(group.size * 32, 64, index, "rows") for index, group in enumerate(groups)] + [(50, 64, None, None)]
    matrices = []
    for number, (outputs, inputs, group, cut) in enumerate(shapes):
        size = float(torch.rand((), generator=generator)) * 0.2
        losses = {"float": 0.0, "int8": size * 0.02 * float(torch.rand((), generator=generator)), "int4": size}
        matrices.append(Matrix(f"m{number}", outputs, inputs, group, cut, losses))
    return Stock(matrices, fixed=300, unit_bytes=[4] * len(groups))


def _brute_force(importance, stock, limit):
    """The least loss over every count and every type of every matrix."""
    best = float("inf")
    counts = [counts_of(group) for group in GROUPS]
    for kept in itertools.product(*counts):
        gone = sum(float(v.double().sort().values[: len(v) - n].sum()) for v, n in zip(importance, kept, strict=True))
        beside = sum(count * own for count, own in zip(kept, stock.unit_bytes, strict=True))
        shares = [n / group.size for n, group in zip(kept, GROUPS, strict=True)] + [1.0]
        of = [shares[-1 if own.group is None else own.group] for own in stock.matrices]
        for types in itertools.product(ALL, repeat=len(stock.matrices)):
            rows = list(zip(stock.matrices, of, types, strict=True))
            if stock.fixed + beside + sum(own.nbytes(kind, share, 2) for own, share, kind in rows) <= limit:
                best = min(best, gone + sum(own.losses[kind] * share for own, share, kind in rows))
    return best


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.35, 0.55, 0.8])
def test_the_allocation_is_as_good_as_the_best_of_all_widths_and_types(seed, share):
    generator = torch.Generator().manual_seed(seed)
    importance = [torch.rand(group.size, generator=generator) * 0.1 for group in GROUPS]
    stock = _stock(generator)
    whole = allocate(importance, GROUPS, stock, 10**9, ALL)
    assert whole.loss == 0
    assert set(whole.types.values()) == {"float"}
    limit = int(share * whole.nbytes)
    found = allocate(importance, GROUPS, stock, limit, ALL)
    assert found.nbytes <= limit
    best = _brute_force(importance, stock, limit)
    # Chains leave out a few mixtures of types: no more than one refinement apart.
    assert best - 1e-12 <= found.loss <= best * 1.1 + 1e-9
    pruned, rounded = (
        allocate(importance, GROUPS, stock, limit, types, cuts=cuts) if fits else None
        for types, cuts, fits in ((("float",), True, share > 0.5), (ALL, False, True))
    )
    assert all(found.loss <= alone.loss + 1e-9 for alone in (pruned, rounded) if alone is not None)


def test_the_known_optimum_of_a_toy_is_found():
    # One unit is worthless and one matrix does not mind 4 bits: both are taken before anything that costs.
    groups = (UnitGroup(0, "neuron", 4, 1, 64, 128, 128),)
    importance = [torch.tensor([0.5, 0.0, 0.5, 0.5])]
    matrices = [
        Matrix("inner", 128, 64, 0, "rows", {"float": 0.0, "int8": 0.4, "int4": 0.9}),
        Matrix("beside", 100, 64, None, None, {"float": 0.0, "int8": 0.0, "int4": 0.0}),
    ]
    stock = Stock(matrices, fixed=0, unit_bytes=[0])
    limit = 96 * 64 * 2 + STORAGE_TYPES["int4"].nbytes(100, 64, 2)
    found = allocate(importance, groups, stock, limit + 8, ALL)
    assert found.loss == 0
    assert found.types == {"inner": "float", "beside": "int4"}
    assert found.mask.kept[0].tolist() == [True, False, True, True]


def test_a_budget_below_what_any_type_can_hold_is_refused_with_the_smallest_possible():
    generator = torch.Generator().manual_seed(0)
    importance = [torch.rand(group.size, generator=generator) for group in GROUPS]
    stock = _stock(generator)
    with pytest.raises(TargetUnreachable, match=r"at least .* must be stored") as error:
        allocate(importance, GROUPS, stock, 500, ALL)
    least = int(str(error.value).split("(")[1].split(" bytes")[0].replace(",", ""))
    assert allocate(importance, GROUPS, stock, least, ALL).nbytes == least
    with pytest.raises(TargetUnreachable, match="smaller types"):
        allocate(importance, GROUPS, stock, least, ("float",))


@pytest.mark.parametrize(("bits", "group"), [(8, 96), (4, 32), (4, 96)])
def test_what_is_rounded_to_the_nearest_is_off_by_at_most_half_a_step_or_was_cut_off(bits, group):
    weight = torch.randn(24, 96, generator=torch.Generator().manual_seed(1))
    found = round_nearest(weight, bits, group)
    step = found.scales.float().repeat_interleave(group, 1)[:, :96]
    most = 2 ** (bits - 1)
    off = (found.weight - weight).abs()
    within = (weight >= -most * step) & (weight <= (most - 1) * step)
    assert bool((off <= step / 2 + 1e-6)[within].all())
    assert found.codes.min() >= -most
    assert int(found.codes.max()) < most


@pytest.mark.parametrize("bits", [4, 8])
def test_rounding_with_the_gram_loses_less_of_the_outputs_than_rounding_to_the_nearest(bits):
    generator = torch.Generator().manual_seed(2)
    X = torch.randn(2000, 20, generator=generator) @ torch.randn(20, 160, generator=generator)
    X += 0.1 * torch.randn(X.shape, generator=generator)
    weight = torch.randn(48, 160, generator=generator)
    group = 160 if bits == 8 else 32
    nearest, compensated = round_nearest(weight, bits, group), round_compensated(weight, X.T @ X, bits, group)
    lost = [float((X @ (own.weight - weight).T).square().sum()) for own in (nearest, compensated)]
    assert lost[1] < 0.5 * lost[0]


def test_a_matrix_whose_inputs_are_all_zero_is_rounded_all_the_same():
    weight = torch.randn(4, 40, generator=torch.Generator().manual_seed(3))
    found = round_compensated(weight, torch.zeros(40, 40), 4, 32)
    assert bool(found.weight.isfinite().all())
    assert float((found.weight - weight).abs().max()) < 1


@pytest.mark.parametrize(
    ("given", "size"),
    [("100MB", 10**8), ("0.5GB", 5 * 10**8), (" 12 kb", 12_000), ("1GiB", 2**30), (4096, 4096), ("77", 77)],
)
def test_sizes_are_read_as_people_write_them(given, size):
    assert read_size(given) == size


@pytest.mark.parametrize(
    "given", ["", "MB", "-1MB", "1e3", "10 parsecs", "nan", float("nan"), 0, True, None, [], 2**60, "1" * 50]
)
def test_what_is_no_size_is_refused_with_what_would_be_one(given):
    with pytest.raises(ValueError, match="must be"):
        read_size(given)


def test_sizes_are_told_in_round_numbers():
    assert [size_text(own) for own in (12, 1500, 45_430_000, 4 * 10**9)] == ["12 bytes", "1.5 KB", "45.43 MB", "4 GB"]


def _spec_of(model, target, task):
    return PruneSpec.model_validate(
        {
            "model": str(model),
            "task": task,
            "target": target,
            "calibration": {"samples": 64, "max_length": 32, "batch_tokens": 256},
            "latency": {"batch": 2, "length": 16, "repeats": 3},
        }
    )


def _bundle(model, data, tmp_path, share, **changes):
    """Run a target of a share of the float16 bytes of all tensors, and return the bundle and its report."""
    whole = 2 * read_checkpoint(model).parameters
    target = {"metric": "bytes", "at_most": int(share * whole) + 14_000} | changes.pop("target", {})  # headers of many tensors
    spec = _spec_of(model, target, **changes) if changes else tiny.tiny_spec(model, data, target=target)
    report = run(spec, tmp_path / "out", device="cpu")
    return tmp_path / "out", report


@pytest.fixture(autouse=True)
def _small_matrices(monkeypatch):
    """Let matrices of tiny models be rounded too."""
    monkeypatch.setattr(rounding_losses, "LEAST_WEIGHTS", 64)
    monkeypatch.setattr(checks_of_method, "LEAST_WEIGHTS", 64)
    monkeypatch.setattr(storage_plans, "_ENTRY", 130)


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_a_bundle_of_bytes_loads_in_a_fresh_process_and_is_what_was_measured(family, tiny_sst2, tmp_path):
    model = tiny.write_model(tmp_path / "model", family)
    out, report = _bundle(model, tiny_sst2, tmp_path, 0.45)
    assert report.target.met
    assert report.acceptance is not None
    assert report.storage is not None
    assert report.storage.types
    assert sum(path.stat().st_size for path in out.glob("*.safetensors")) == report.bytes.pruned == report.target.achieved
    assert sum(row.weights for row in report.storage.rows) == report.parameters.pruned
    # What is loaded is what integers and scales stand for, and nothing of the stand-ins is left.
    loaded = load_task_model(out, "text-classification", torch.device("cpu")).model
    forms = json.loads((out / "config.json").read_text())["coppice"]["rounded"]
    weights = load_file(out / "model.safetensors")
    for path, form in forms.items():
        read = unround(path, weights[f"{path}.weight"], weights[f"{path}.weight_scales"], form)
        assert torch.equal(loaded.get_submodule(path).weight, read)
    assert not [name for name, _ in loaded.named_buffers() if "scales" in name]
    assert "int" in (out / "README.md").read_text()


def test_a_bundle_of_bytes_is_pruned_again_and_saved_as_ordinary_weights(tiny_bert, tiny_sst2, tmp_path):
    out, first = _bundle(tiny_bert, tiny_sst2, tmp_path, 0.45)
    report = run(tiny.tiny_spec(out, tiny_sst2, target={"metric": "params", "keep": 0.9}), tmp_path / "again", device="cpu")
    assert report.acceptance is not None
    assert report.storage is None
    assert report.parameters.pruned < report.parameters.dense == first.parameters.pruned
    assert "rounded" not in json.loads((tmp_path / "again" / "config.json").read_text())["coppice"]


def test_integers_that_are_not_those_that_were_written_are_refused(tiny_bert, tiny_sst2, tmp_path):
    out, _ = _bundle(tiny_bert, tiny_sst2, tmp_path, 0.45)
    weights = load_file(out / "model.safetensors")
    path = next(iter(json.loads((out / "config.json").read_text())["coppice"]["rounded"]))
    weights[f"{path}.weight"] ^= 1
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelUnreadable, match="corrupt"):
        load_task_model(out, "text-classification", torch.device("cpu"))
    del weights[f"{path}.weight_scales"]
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelUnreadable, match="stored in integers"):
        load_task_model(out, "text-classification", torch.device("cpu"))


@pytest.mark.parametrize(("types", "widths"), [(["float"], "choose"), (["int8"], "keep"), (["float", "int8", "int4"], "keep")])
def test_types_and_widths_are_as_the_target_says(types, widths, tiny_bert, tiny_sst2, tmp_path):
    _, report = _bundle(tiny_bert, tiny_sst2, tmp_path, 0.75, target={"types": types, "widths": widths})
    stored = set(report.storage.types.values()) if report.storage is not None else set()
    assert stored <= set(types)
    gone = any(layer.kept_neurons < layer.dense_neurons or layer.kept_heads < layer.dense_heads for layer in report.layers)
    assert not (gone and widths == "keep")
    assert report.target.met


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"artifacts": {"layout": "stock"}}, "per_layer"),
        ({"artifacts": {"formats": ["safetensors", "gguf"]}}, "gguf"),
        ({"method": "magnitude"}, "fisher-cg"),
        ({"memory": {"weights": "paged"}}, "memory.weights"),
        ({"target": {"metric": "bytes", "at_most": "10 parsecs"}}, "GiB"),
        ({"target": {"metric": "bytes", "at_most": 10**6, "types": ["int8", "int8"]}}, "differ"),
    ],
)
def test_what_does_not_go_with_bytes_is_refused_at_submit(changes, said, tiny_bert, tiny_sst2):
    with pytest.raises(ValidationError, match=said):
        tiny.tiny_spec(tiny_bert, tiny_sst2, **({"target": {"metric": "bytes", "at_most": "1MB"}} | changes))


def test_a_budget_that_nothing_fits_is_refused_before_the_job(tiny_bert, tiny_sst2, tmp_path):
    spec = tiny.tiny_spec(tiny_bert, tiny_sst2, target={"metric": "bytes", "at_most": 500})
    with pytest.raises(TargetUnreachable, match="must be stored of this model"):
        check_local_inputs(spec)


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5"])
def test_tied_and_input_major_matrices_come_back_as_they_were_rounded(name, tmp_path):
    # Tied embeddings (all three, with the output head), and matrices that are stored input-major (gpt2).
    architecture = families.ARCHITECTURES[name]
    kind = "summarization" if name == "t5" else "text-generation"
    model = architecture.write(tmp_path / "model", "generation", tie_word_embeddings=True)
    data = tasks.write_task_data(tmp_path / "data", kind)
    _, report = _bundle(model, data, tmp_path, 0.5, task=tasks.task_of(kind, data))
    assert report.acceptance is not None
    assert report.storage is not None
    assert [path for path in report.storage.types if "embed" in path or "wte" in path or "shared" in path]
