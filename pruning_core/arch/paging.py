"""Paged blocks: weights stay in files until a block runs, so that a model may be larger than the memory of its device.

Nearly all weights of a model belong to the linears in its blocks. In a paged block, these weights are on the meta device, and
a `Page` knows where in a file each one lies. They are on the device while the block runs or is held, and are dropped
afterwards. A float32 file is memory-mapped: on a CPU nothing is copied, and the system may reclaim the memory at any time.

Replacing the weights of a held linear (a slice, a repair) does not change the file. When the block is released, the new weights
are written to an unnamed file of their own and read from there. Norms, biases and position tables stay on the device; they
are small.

A copy of a model has copies of its pages. The pages of the two models are independent from then on.
"""

from __future__ import annotations

import copy
import ctypes
import gc
import inspect
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from pruning_core.arch.experts import Spread
from pruning_core.files.tensors import MappedTensor, write_tensors

if TYPE_CHECKING:
    from pruning_core.arch.linear import AnyLinear, PlainLinear


@dataclass(frozen=True, slots=True)
class _Saved:
    """A view of a weight, saved for the backward pass as its place in a file."""

    stored: MappedTensor
    dtype: torch.dtype
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


class Page:
    """The weights of one block's linears, on the device only while the block is held. The page replaces the block's forward."""

    def __init__(
        self, block: nn.Module, mapped: Mapping[PlainLinear, MappedTensor], device: torch.device, scratch: Path
    ) -> None:
        """Move the weights of a block off the device.

        Args:
            block: Changed in place: its forward becomes this page.
            mapped: Where the weights of its linears lie.
            device: Device on which the block runs.
            scratch: Folder for the files of replaced weights.
        """
        self._block = weakref.ref(block)  # a cycle would keep dropped copies in memory until the garbage collector runs
        self.__signature__ = inspect.signature(block.forward)  # callers inspect the signature of a block's forward
        self._mapped = dict(mapped)
        self._device, self._scratch = device, scratch
        self._holders = 0
        self._loaded: dict[PlainLinear, nn.Parameter] = {}
        self._lent: MappedTensor | None = None
        self._away: dict[PlainLinear, nn.Parameter] = {}
        for linear in self._mapped:
            self._put_away(linear)
        block.__dict__["forward"] = self

    def __deepcopy__(self, memo: dict[int, object]) -> Page:
        """Return the page of a copy of the block."""
        own = copy.copy(self)
        own._block = weakref.ref(copy.deepcopy(self._block_(), memo))
        own._mapped = copy.deepcopy(self._mapped, memo)
        own._loaded, own._away = copy.deepcopy(self._loaded, memo), copy.deepcopy(self._away, memo)
        return own

    def _block_(self) -> nn.Module:
        block = self._block()
        assert block is not None, "a page is called by its block"
        return block

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Run the block with its weights in the dtype in which its products are computed.

        For the backward pass, only the place of the weights is saved. It reads them again.
        """
        block = self._block_()
        forward = cast("Callable[..., object]", type(block).forward)
        kind = self._device.type
        low = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        with ExitStack() as stack:
            stack.enter_context(self.held(low))
            if torch.is_grad_enabled():
                stack.enter_context(torch.autograd.graph.saved_tensors_hooks(self._packer(), self._unpack))
            return forward(block, *args, **kwargs)

    @contextmanager
    def held(self, dtype: torch.dtype = torch.float32) -> Generator[None]:
        """Keep the weights on the device while the context is open. Nested contexts share the weights of the outermost."""
        if not self._holders:
            for linear, stored in self._mapped.items():
                linear.weight = self._loaded[linear] = nn.Parameter(stored.read(self._device, dtype), requires_grad=False)
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            if not self._holders:
                self._let_go()

    def _let_go(self) -> None:
        loaded, self._loaded = self._loaded, {}
        changed = [(linear, linear.weight) for linear, weight in loaded.items() if linear.weight is not weight]
        if changed:
            self._mapped |= write_tensors(changed, self._scratch)
        for linear, stored in self._mapped.items():
            self._put_away(linear)
            stored.forget()
        if self._device.type == "cpu":
            _trim_heap()

    def _put_away(self, linear: PlainLinear) -> None:
        away = self._away.get(linear)
        if away is None or away.shape != linear.weight.shape:
            away = nn.Parameter(torch.empty(linear.weight.shape, dtype=torch.float32, device="meta"), requires_grad=False)
            self._away[linear] = away
        linear.weight = away

    def tensor_of(self, linear: PlainLinear) -> MappedTensor:
        """Return where the weights of a linear lie. The block must not be held."""
        return self._mapped[linear]

    def forget(self, linears: Sequence[AnyLinear]) -> None:
        """Read no weights any more of linears that the block no longer has."""
        for linear in linears:
            if isinstance(linear, Spread):
                continue  # none of it is ever read page by page
            for kept in (self._mapped, self._away, self._loaded):
                kept.pop(linear, None)

    @property
    def linears(self) -> tuple[PlainLinear, ...]:
        """The linears whose weights are paged."""
        return tuple(self._mapped)

    def _packer(self) -> Callable[[Tensor], Tensor | _Saved]:
        own = {
            weight.untyped_storage().data_ptr(): (self._mapped[linear], weight.dtype) for linear, weight in self._loaded.items()
        }

        def pack(tensor: Tensor) -> Tensor | _Saved:
            found = own.get(tensor.untyped_storage().data_ptr())
            return tensor if found is None else _Saved(*found, tensor.shape, tensor.stride(), int(tensor.storage_offset()))

        return pack

    def _unpack(self, saved: Tensor | _Saved) -> Tensor:
        if isinstance(saved, Tensor):
            return saved
        if self._lent is not None:
            self._lent.forget()
        self._lent = saved.stored
        return saved.stored.read(self._device, saved.dtype).as_strided(saved.size, saved.stride, saved.offset)


def page_of(block: nn.Module) -> Page | None:
    """Return the page of a block, or None where the block is not paged."""
    page = block.__dict__.get("forward")
    return page if isinstance(page, Page) else None


def first_names(model: nn.Module) -> dict[str, str]:
    """Map each name in a model's state to the first name of the same tensor; the two differ where weights are tied."""
    seen: dict[Tensor, str] = {}  # tensors are hashed by identity
    state = cast("dict[str, Tensor]", model.state_dict(keep_vars=True))
    return {name: seen.setdefault(tensor, name) for name, tensor in state.items()}


def each_tensor(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield a model's state in the order of ``state_dict``. Paged weights are read when their turn comes."""
    paths = {module: path for path, module in model.named_modules()}
    pages = [page for page in map(page_of, model.modules()) if page is not None]
    mapped = {f"{paths[linear]}.weight": page.tensor_of(linear) for page in pages for linear in page.linears}
    for name, tensor in cast("dict[str, Tensor]", model.state_dict()).items():
        stored = mapped.get(name)
        yield name, tensor if stored is None else stored.read(torch.device("cpu"))
        if stored is not None:
            stored.forget()


def device_map(model: nn.Module, device: torch.device) -> dict[str, str]:
    """Return the ``device_map`` by which transformers leaves paged blocks on disk and puts everything else on the device."""
    found: dict[str, str] = {}

    def visit(module: nn.Module, path: str) -> None:
        if page_of(module) is not None:
            found[path] = "disk"
        elif all(page_of(inner) is None for inner in module.modules()):
            found[path] = str(device)
        else:
            start = f"{path}." if path else ""
            own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
            found.update({start + name: str(device) for name, _ in own})
            for name, child in module.named_children():
                visit(child, start + name)

    visit(model, "")
    return found


@contextmanager
def held(*blocks: nn.Module) -> Generator[None]:
    """Keep the weights of blocks on the device while the context is open. Blocks that are not paged are left alone."""
    with ExitStack() as stack:
        for page in filter(None, map(page_of, blocks)):
            stack.enter_context(page.held())
        yield


def give_back() -> None:
    """Return unused memory to the system before another process needs memory beside this one."""
    gc.collect()
    _trim_heap()


def _trim_heap() -> None:
    """Return the holes of the heap to the system (glibc). Blocks leave them behind as their weights come and go."""
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
