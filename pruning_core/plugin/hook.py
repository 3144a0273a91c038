"""Registration of the checkpoint plug-in with transformers, now or as soon as transformers is imported. Torch-free.

``import pruning_core`` must be enough for ``from_pretrained`` to read a bundle, whether transformers is imported before or
after. Yet it must not import torch, which the front end does not have. So where transformers is not imported yet, an import
finder waits for the one module that holds its registry (docs/decisions/0004).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_REGISTRY = "transformers.quantizers.auto"


def install() -> None:
    """Register the plug-in now if transformers' registry is loaded, else as soon as it is."""
    if _REGISTRY in sys.modules:
        _register()
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _register() -> None:
    # If this very module is being imported and has brought transformers in, it registers itself at the end of its import.
    importlib.import_module("pruning_core.plugin.per_layer")


class _Finder(MetaPathFinder):
    """An import finder that waits for transformers' registry, wraps its loader, and removes itself."""

    def find_spec(self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None, /) -> ModuleSpec | None:
        if fullname != _REGISTRY:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader)
        return spec


class _RegisteringLoader(Loader):
    """A loader that loads a module as the wrapped loader does, then registers the plug-in."""

    def __init__(self, wrapped: Loader) -> None:
        self._wrapped = wrapped

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._wrapped.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._wrapped.exec_module(module)
        _register()
