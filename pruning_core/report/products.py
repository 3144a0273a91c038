"""Reports of sparse matrix products: what a model's zeros save on one device, measured. Torch-free."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from pruning_core.spec.frozen import Frozen

SparseForm = Literal["2:4", "bsr", "csr"]
SPARSE_FORMS: tuple[SparseForm, ...] = get_args(SparseForm)
ProductForm = Literal["dense", "2:4", "bsr", "csr"]


class FormReport(Frozen):
    """One sparse form of a matrix: how long its product takes, or why it was not timed."""

    form: SparseForm
    ms: float | None = Field(default=None, description="Median milliseconds of one product.")
    refused: str | None = Field(default=None, description="Why it was not timed.")
    block: int | None = Field(default=None, description="Side of the square blocks of bsr.")


class ProductGroup(Frozen):
    """Matrices of one shape with alike zeros, in number and arrangement. The one with the fewest zeros was timed for all."""

    outputs: int
    inputs: int
    matrices: tuple[str, ...] = Field(description="Module paths; the first was timed.")
    nonzeros: float = Field(description="Share of the timed matrix's weights that are not zero.")
    dense: float = Field(description="Median milliseconds of the dense product, timed in turns with the sparse ones.")
    forms: tuple[FormReport, ...]
    fastest: ProductForm = Field(
        description="The fastest form; a sparse one only if its product took at least 5 % less time than the dense one."
    )

    @property
    def best(self) -> FormReport | None:
        """The fastest sparse form, even if the dense product is faster; None if all forms were refused."""
        return min((form for form in self.forms if form.ms is not None), key=lambda form: form.ms or 0.0, default=None)

    @property
    def ms(self) -> float:
        """Milliseconds of the product in the fastest form."""
        return self.dense if self.best is None or self.best.ms is None or self.fastest == "dense" else self.best.ms


class ProductsReport(Frozen):
    """Timings of dense and sparse products with every prunable matrix, at the shape of the report's latency."""

    device: str
    dtype: str = Field(description="Data type of all products.")
    batch: int
    length: int
    threads: int
    groups: tuple[ProductGroup, ...]

    @property
    def sparse(self) -> int:
        """Number of matrices whose product is faster in a sparse form."""
        return sum(len(group.matrices) for group in self.groups if group.fastest != "dense")

    @property
    def said(self) -> str:
        """A sentence that says what sparse products save on this device."""
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
