"""Blocks whose weights lie in files until they run, so that a model may be larger than the memory of its device.

Nearly all of a model's weights are those of the linears in its blocks. A paged block has them on the meta device, and a `Page`
that knows where in a file each one lies. While the block runs, or while somebody holds it, they are on the device; then they
are gone again. A file that has them in float32 is mapped: on a CPU nothing is copied, and the system may take the memory back
at any time. Who gives a held linear other weights (a slice, a repair) changes nothing in the file: when the block is let go,
they are written to an unnamed file of their own, and are read from there. Norms, biases and tables of positions stay where
they are; they take next to nothing.

Copies of a model copy its pages, which then go their own ways.
"""

from __future__ import annotations

import copy
import ctypes
import gc
import inspect
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from pruning_core.files.tensors import MappedTensor, write_tensors

if TYPE_CHECKING:
    from pruning_core.arch.linear import AnyLinear


@dataclass(frozen=True, slots=True)
class _Saved:
    """What a backward pass needs of a weight: the view of it that some operation read."""

    stored: MappedTensor
    dtype: torch.dtype
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


class Page:
    """The weights of one block's linears, on the device only while the block is held. It stands before the block's forward."""

    def __init__(self, block: nn.Module, mapped: Mapping[AnyLinear, MappedTensor], device: torch.device, scratch: Path) -> None:
        """Take the weights of a block away.

        Args:
            block: Changed in place: from now on its forward is this page.
            mapped: Where the weights of its linears lie.
            device: Where they are used.
            scratch: Folder for what they are replaced by.
        """
        self._block = weakref.ref(block)  # a cycle would keep dropped copies in memory until somebody collects them
        self.__signature__ = inspect.signature(block.forward)  # what is asked of forwards by whoever calls them
        self._mapped = dict(mapped)
        self._device, self._scratch = device, scratch
        self._holders = 0
        self._loaded: dict[AnyLinear, nn.Parameter] = {}
        self._lent: MappedTensor | None = None
        self._away: dict[AnyLinear, nn.Parameter] = {}
        for linear in self._mapped:
            self._put_away(linear)
        block.__dict__["forward"] = self

    def __deepcopy__(self, memo: dict[int, object]) -> Page:
        """Give the page of a copy of the block."""
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
        """Run the block, with its weights in the type in which its products are computed.

        A backward pass reads the weights again: what it would keep of them is only the place where they lie.
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
        """Keep the weights on the device while the context is open."""
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

    def _put_away(self, linear: AnyLinear) -> None:
        away = self._away.get(linear)
        if away is None or away.shape != linear.weight.shape:
            away = nn.Parameter(torch.empty(linear.weight.shape, dtype=torch.float32, device="meta"), requires_grad=False)
            self._away[linear] = away
        linear.weight = away

    def tensor_of(self, linear: AnyLinear) -> MappedTensor:
        """Give where the weights of a linear lie, of a block that nobody holds."""
        return self._mapped[linear]

    @property
    def linears(self) -> tuple[AnyLinear, ...]:
        """The linears whose weights come and go."""
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
    """Give the page of a block; None where its weights are always there."""
    page = block.__dict__.get("forward")
    return page if isinstance(page, Page) else None


def first_names(model: nn.Module) -> dict[str, str]:
    """Give, for each name of a model's state, the first name of the same tensor: another where weights are tied."""
    seen: dict[Tensor, str] = {}  # tensors are told apart by identity
    state = cast("dict[str, Tensor]", model.state_dict(keep_vars=True))
    return {name: seen.setdefault(tensor, name) for name, tensor in state.items()}


def each_tensor(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Give a model's state, name by name as ``state_dict`` has it; what lies in files is read when its turn comes."""
    paths = {module: path for path, module in model.named_modules()}
    pages = [page for page in map(page_of, model.modules()) if page is not None]
    mapped = {f"{paths[linear]}.weight": page.tensor_of(linear) for page in pages for linear in page.linears}
    for name, tensor in cast("dict[str, Tensor]", model.state_dict()).items():
        stored = mapped.get(name)
        yield name, tensor if stored is None else stored.read(torch.device("cpu"))
        if stored is not None:
            stored.forget()


def device_map(model: nn.Module, device: torch.device) -> dict[str, str]:
    """Give the ``device_map`` by which transformers leaves the same blocks on the disk, and everything else on the device."""
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
    """Keep the weights of blocks on the device while the context is open; nothing happens to those that are always there."""
    with ExitStack() as stack:
        for page in filter(None, map(page_of, blocks)):
            stack.enter_context(page.held())
        yield


def give_back() -> None:
    """Give what nobody uses any more back to the system, before another process needs memory beside this one."""
    gc.collect()
    _trim_heap()


def _trim_heap() -> None:
    """Give the holes of the heap back to the system (glibc), which what comes and goes with a block has left there."""
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
