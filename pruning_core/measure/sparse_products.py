"""Sparse matrix products: timed beside dense ones on a job's device, and used on request where they are faster.

torch offers three forms: 2:4 semi-structured tensors (``2:4``; Mishra et al. 2021, arXiv 2104.08378; NVIDIA GPUs of compute
capability 8.0 and later, in half precision), block-compressed rows for whole square blocks of zeros (``bsr``), and compressed
rows on the CPU for zeros that lie anywhere (``csr``). A form whose product differs from the dense one is refused, whatever its
speed.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from pruning_core.arch.adapter import adapt
from pruning_core.arch.linear import bias_of, is_linear, weight_of
from pruning_core.errors import PruningError
from pruning_core.machine.resources import raise_if_exhausted
from pruning_core.machine.timing import timed
from pruning_core.measure.latency import limited_threads, median_and_iqr
from pruning_core.report.products import SPARSE_FORMS, FormReport, ProductGroup, ProductsReport, SparseForm
from pruning_core.report.report import LatencyReport, Outcome
from pruning_core.shapes import Float

if TYPE_CHECKING:
    from collections.abc import Generator

    from transformers import PreTrainedModel

    from pruning_core.arch.linear import AnyLinear

# Largest difference of a product from the dense one, relative to the largest entry: sums are in another order, rounded once.
_TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
_FASTER = 0.95  # largest share of the dense product's time that counts as faster: a smaller gain is noise
_REPEATS, _FEWEST, _SECONDS_A_GROUP = 5, 3, 0.15
_SIDES = (64, 32, 16)  # sides of square blocks; MKL's and torch's own kernels support these
_MOST_STORED = 0.75  # largest share of stored blocks: with more, nothing can be gained
_MOST_KEPT = 0.5  # largest share of nonzero weights for compressed rows: likewise
_STEPS = 20  # shares of nonzeros are rounded to one part of this; matrices with equal ones are timed as one


class FormRefused(Exception):
    """A matrix does not fit a sparse form, or its product in that form is wrong."""


@dataclass(frozen=True, slots=True)
class Applied:
    """Result of `run_sparse_`.

    Attributes:
        forms: Form of every matrix that now runs sparse, by module path.
        said: The result as a sentence, with the reasons why matrices stayed dense.
    """

    forms: Mapping[str, SparseForm]
    said: str


class SparseLinear(nn.Linear):
    """A linear layer with a sparse weight. Its inputs and outputs are contiguous rows, as those of a dense linear are.

    torch's product with compressed rows returns contiguous columns, on which the next sparse product would be 5 times as slow.
    """

    def forward(self, input: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch d"]:  # noqa: A002
        """Multiply the input by the sparse weight and add the bias."""
        return product(input, self.weight, self.bias)


def product(inputs: Float[Tensor, "*batch k"], weight: Tensor, bias: Float[Tensor, " d"] | None) -> Float[Tensor, "*batch d"]:
    """Multiply by an output-major weight in any form; inputs and result are contiguous rows."""
    return F.linear(inputs.contiguous(), weight, bias).contiguous()


def measure_products(
    model: PreTrainedModel, latency: LatencyReport, stored_dtype: str, generator: torch.Generator
) -> ProductsReport:
    """Time the dense product of every prunable matrix and those of its sparse forms, in turns, on the model's device.

    Args:
        model: The pruned model, in float32.
        latency: Report that gives batch, length and threads.
        stored_dtype: Data type of the written weights. GPUs with 2:4 products are timed in float16 if it is that, else in
            bfloat16; other devices in float32.
        generator: CPU generator that draws the inputs.
    """
    device = model.device
    dtype = _compute_dtype(device, stored_dtype)
    alike: dict[tuple[object, ...], list[tuple[int, str, AnyLinear]]] = {}
    for path, linear in adapt(model).linears.items():
        weight = weight_of(linear)
        if weight.numel():
            alike.setdefault(_likeness(weight), []).append((int(weight.count_nonzero()), path, linear))
    groups: list[ProductGroup] = []
    with torch.inference_mode(), limited_threads(latency.threads), _quiet():
        for members in alike.values():
            members.sort(key=lambda own: own[0], reverse=True)  # time the matrix with the fewest zeros: no other is slower
            linear = members[0][2]
            weight, bias = weight_of(linear).to(dtype).contiguous(), bias_of(linear)
            inputs = torch.randn(latency.batch, latency.length, weight.shape[1], generator=generator).to(device, dtype)
            own = _time(weight, None if bias is None else bias.to(dtype), inputs, [name for _, name, _ in members])
            groups.append(own)
        threads = torch.get_num_threads()
    return ProductsReport(
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        batch=latency.batch,
        length=latency.length,
        threads=threads,
        groups=tuple(groups),
    )


def run_sparse_(model: PreTrainedModel, report: Outcome) -> Applied:
    """Replace a model's matrices by the sparse forms that its report found faster; all others stay dense.

    The gain holds for a device, a shape and a number of threads like the report's. A model that runs sparse is for inference:
    no parameter requires a gradient any more, and ``save_pretrained`` does not write sparse weights.

    Args:
        model: The report's checkpoint, loaded; changed in place.
        report: Report of a job with a sparsity pattern.

    Raises:
        PruningError: The report names matrices that the model does not have.
    """
    products = None if report.pattern is None else report.pattern.products
    if products is None:
        return Applied({}, "nothing changed: the report has no measured sparse products")
    if not products.sparse:
        return Applied({}, f"nothing changed: {products.said}")
    dtype = str(model.dtype).removeprefix("torch.")
    if (model.device.type, dtype) != (torch.device(products.device).type, products.dtype):
        return Applied(
            {},
            f"nothing changed: sparse products were measured on {products.device} in {products.dtype}, and this model runs on "
            f"{model.device} in {dtype}",
        )
    _check_names(model, products)
    done: dict[str, SparseForm] = {}
    refused: list[str] = []
    model.requires_grad_(requires_grad=False)
    # Tensors made in inference mode work inside and outside of it; torch 2.13 refuses some sparse products the other way round.
    with torch.inference_mode(), _quiet():
        for group in products.groups:
            if group.fastest == "dense" or group.best is None:
                continue
            for name in group.matrices:
                try:
                    _replace_(model, name, group.best)
                except FormRefused as problem:
                    refused.append(f"{name}: {problem}")
                else:
                    done[name] = group.best.form
    total = sum(len(group.matrices) for group in products.groups)
    left = f"; left dense: {'; '.join(refused)}" if refused else ""
    return Applied(done, f"{len(done)} of {total} matrices run sparse, as measured on {products.device}{left}")


def to_form(weight: Float[Tensor, "d k"], form: SparseForm) -> tuple[Tensor, int | None]:
    """Store a matrix in a sparse form of torch.

    Returns:
        The tensor, and the side of its blocks; None for forms without blocks.

    Raises:
        FormRefused: The form does not fit the matrix or its device.
    """
    if form == "csr":
        if weight.device.type != "cpu":
            raise FormRefused("timed on the CPU only")
        if int(weight.count_nonzero()) > _MOST_KEPT * weight.numel():
            raise FormRefused(f"more than {_MOST_KEPT:.0%} of the weights are not zero")
        return weight.to_sparse_csr(), None
    if form == "bsr":
        side = block_side(weight)
        if side is None:
            raise FormRefused(f"no square blocks of {_SIDES[-1]} to {_SIDES[0]} divide it and are zero often enough")
        return weight.to_sparse_bsr((side, side)), side
    if not _has_semi_structured(weight.device) or weight.dtype not in (torch.float16, torch.bfloat16):
        raise FormRefused("needs an NVIDIA GPU of compute capability 8.0 or later, and half precision")
    if not is_two_of_four(weight):
        raise FormRefused("its zeros are not 2:4")
    return torch.sparse.to_sparse_semi_structured(weight), None


def block_side(weight: Float[Tensor, "d k"]) -> int | None:
    """Return the side of the square blocks to store a matrix in; None if no blocks divide it, or too few are zero.

    It is the largest side that stores at most 5 % more weights than the side that stores the fewest.
    """
    stored = {side: share for side in _SIDES if (share := _stored_share(weight, side)) is not None}
    fewest = min(stored.values(), default=1.0)
    if fewest > _MOST_STORED:
        return None
    return next(side for side, share in stored.items() if share <= 1.05 * fewest)


def is_two_of_four(weight: Float[Tensor, "d k"]) -> bool:
    """Return whether each four consecutive inputs of an output have at most two nonzero weights."""
    if weight.shape[1] % 4:
        return False
    return bool(((weight != 0).unflatten(1, (-1, 4)).sum(-1) <= 2).all())


def _stored_share(weight: Float[Tensor, "d k"], side: int) -> float | None:
    d, k = weight.shape
    if d % side or k % side:
        return None
    held = (weight != 0).view(d // side, side, k // side, side).any(3).any(1)
    return float(held.float().mean())


def _likeness(weight: Float[Tensor, "d k"]) -> tuple[object, ...]:
    """Return the properties that matrices must share to be timed as one."""
    weight = weight.contiguous()
    side = block_side(weight)
    stored = None if side is None else round(_STEPS * (_stored_share(weight, side) or 0.0))
    kept = round(_STEPS * int(weight.count_nonzero()) / weight.numel())
    return (*weight.shape, kept, side, stored, is_two_of_four(weight))


def _time(weight: Float[Tensor, "d k"], bias: Tensor | None, inputs: Tensor, names: Sequence[str]) -> ProductGroup:
    candidates: dict[SparseForm, Tensor] = {}
    refused: list[FormReport] = []
    blocks: dict[SparseForm, int | None] = {}
    for form in SPARSE_FORMS:
        try:
            candidates[form], blocks[form] = proven_form(weight, bias, inputs, form)
        except FormRefused as problem:
            refused.append(FormReport(form=form, refused=str(problem)))
    dense, medians = _in_turns(weight, candidates, lambda own: product(inputs, own, bias))
    best = min(candidates, key=lambda form: medians[form], default=None)
    timed_forms = [FormReport(form=form, ms=medians[form], block=blocks[form]) for form in candidates]
    return ProductGroup(
        outputs=weight.shape[0],
        inputs=weight.shape[1],
        matrices=tuple(names),
        nonzeros=int(weight.count_nonzero()) / weight.numel(),
        dense=dense,
        forms=(*timed_forms, *refused),
        fastest=best if best is not None and medians[best] < _FASTER * dense else "dense",
    )


def _in_turns(
    dense: Tensor, sparse: Mapping[SparseForm, Tensor], multiply: Callable[[Tensor], Tensor]
) -> tuple[float, dict[SparseForm, float]]:
    """Return the median milliseconds of the dense product, and of each sparse one."""
    times: tuple[list[float], ...] = tuple([] for _ in range(1 + len(sparse)))
    multiply(dense)
    began = time.perf_counter()
    for done in range(_REPEATS):
        if done >= _FEWEST and time.perf_counter() - began > _SECONDS_A_GROUP:
            break
        for own, kept in zip((dense, *sparse.values()), times, strict=True):
            kept.append(timed(lambda own=own: multiply(own), dense.device))
    first, *others = (median_and_iqr(own)[0] for own in times)
    return first, dict(zip(sparse, others, strict=True))


def proven_form(
    weight: Float[Tensor, "d k"], bias: Tensor | None, inputs: Tensor, form: SparseForm
) -> tuple[Tensor, int | None]:
    """Store a matrix in a sparse form, and check its product against the dense one, which also warms it up.

    Raises:
        FormRefused: The form does not fit, torch has no product for it here, or the product is wrong.
    """
    sparse, block = to_form(weight, form)
    expected = F.linear(inputs, weight, bias)
    try:
        found = product(inputs, sparse, bias)
    except (RuntimeError, NotImplementedError) as error:  # only the call shows what a build of torch lacks
        raise_if_exhausted(error, "sparse products were timed")
        raise FormRefused(f"torch has no such product here: {str(error).splitlines()[0][:100]}") from error
    difference = float((found - expected).abs().max() / expected.abs().max().clamp_min(torch.finfo(weight.dtype).tiny))
    if not difference <= _TOLERANCE[weight.dtype]:
        raise FormRefused(f"its product differs from the dense one by {difference:.1e}")
    return sparse, block


def _replace_(model: PreTrainedModel, name: str, chosen: FormReport) -> None:
    linear = cast("AnyLinear", model.get_submodule(name))
    weight, bias = weight_of(linear).contiguous(), bias_of(linear)
    probe = torch.randn(32, weight.shape[1], generator=torch.Generator().manual_seed(0)).to(weight)
    sparse, _ = proven_form(weight, bias, probe, chosen.form)
    target = SparseLinear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    if bias is not None:
        target.bias = nn.Parameter(bias, requires_grad=False)
    target.weight = nn.Parameter(sparse, requires_grad=False)
    model.set_submodule(name, target.train(linear.training))


def _check_names(model: PreTrainedModel, products: ProductsReport) -> None:
    modules = dict(model.named_modules())
    for group in products.groups:
        for name in group.matrices:
            module = modules.get(name)
            if not is_linear(module) or weight_of(cast("AnyLinear", module)).shape != (group.outputs, group.inputs):
                raise PruningError(
                    f"this is not the report's model: it has no matrix {name} of {group.outputs} outputs and {group.inputs} "
                    "inputs; load the bundle with the class that its card names"
                )


def _compute_dtype(device: torch.device, stored: str) -> torch.dtype:
    if not _has_semi_structured(device):
        return torch.float32
    return torch.float16 if stored == "float16" else torch.bfloat16


def _has_semi_structured(device: torch.device) -> bool:
    """Return whether a device has 2:4 products; AMD's GPUs, which torch also calls CUDA, have none here."""
    return device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)


@contextmanager
def _quiet() -> Generator[None]:
    """Silence torch's warnings that sparse layouts are in beta: every product here is checked against the dense one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(Sparse|sparse).*(beta|prototype)", category=UserWarning)
        yield
