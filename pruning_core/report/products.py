"""What a model's zeros buy in matrix products on one device, measured. Torch-free."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from pruning_core.spec.frozen import Frozen

SparseForm = Literal["2:4", "bsr", "csr"]
SPARSE_FORMS: tuple[SparseForm, ...] = get_args(SparseForm)
ProductForm = Literal["dense", "2:4", "bsr", "csr"]


class FormReport(Frozen):
    """One sparse form of a matrix: how long its product takes, or why there is none."""

    form: SparseForm
    ms: float | None = Field(default=None, description="Median milliseconds of one product.")
    refused: str | None = Field(default=None, description="Why it was not timed.")
    block: int | None = Field(default=None, description="Side of the square blocks of bsr.")


class ProductGroup(Frozen):
    """Matrices of one shape whose zeros are about as many and lie alike; the one with the fewest zeros was timed for all."""

    outputs: int
    inputs: int
    matrices: tuple[str, ...] = Field(description="Module paths; the first was timed.")
    nonzeros: float = Field(description="Share of the timed matrix's weights that are not zero.")
    dense: float = Field(description="Median milliseconds of the dense product, in turns with the sparse ones.")
    forms: tuple[FormReport, ...]
    fastest: ProductForm = Field(
        description="A sparse form only where it took at least a twentieth less than the dense product."
    )

    @property
    def best(self) -> FormReport | None:
        """The fastest sparse form, faster than the dense product or not; None where all were refused."""
        return min((form for form in self.forms if form.ms is not None), key=lambda form: form.ms or 0.0, default=None)

    @property
    def ms(self) -> float:
        """Milliseconds of the fastest product."""
        return self.dense if self.best is None or self.best.ms is None or self.fastest == "dense" else self.best.ms


class ProductsReport(Frozen):
    """Dense and sparse products of every prunable matrix, at the shape of the report's latency."""

    device: str
    dtype: str = Field(description="What all products computed in.")
    batch: int
    length: int
    threads: int
    groups: tuple[ProductGroup, ...]

    @property
    def sparse(self) -> int:
        """Count the matrices that a sparse form multiplies faster."""
        return sum(len(group.matrices) for group in self.groups if group.fastest != "dense")

    @property
    def said(self) -> str:
        """Say in a sentence what sparse products buy on this device."""
        total = sum(len(group.matrices) for group in self.groups)
        threads = f", {self.threads} thread{'s' if self.threads > 1 else ''}" if self.device == "cpu" else ""
        where = f"on {self.device} (batch {self.batch}, length {self.length}{threads}, {self.dtype})"
        if self.sparse:
            before, after = (
                sum(ms * len(group.matrices) for group, ms in ((group, getattr(group, of)) for group in self.groups))
                for of in ("dense", "ms")
            )
            forms = " and ".join(sorted({group.fastest for group in self.groups} - {"dense"}))
            return (
                f"{self.sparse} of {total} matrices multiply faster in sparse form ({forms}) {where}: with them all matrix "
                f"products together are {before / after:.2f}x as fast as dense ones; models run dense unless "
                "pruning_core.measure.sparse_products.run_sparse_ is called"
            )
        tried = [(group.dense / best.ms, best.form) for group in self.groups if (best := group.best) is not None and best.ms]
        if not tried:
            return f"all matrices run dense: no sparse form of torch fits them {where}"
        ratio, form = max(tried)
        return f"all matrices run dense: the best sparse product ({form}) is {ratio:.2f}x as fast as the dense one {where}"
