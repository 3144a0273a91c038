"""Registration of the checkpoint plug-in with transformers, now or as soon as transformers is imported. Torch-free.

``import pruning_core`` must be enough for ``from_pretrained`` to read a bundle, whether transformers is imported before or
after. Yet it must not import torch, which the front end does not have. So where transformers is not imported yet, an import
finder waits for the modules that hold its registries (docs/decisions/0004).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

# Modules of transformers that hold a registry, and ours that register when they are imported.
_REGISTRIES = {
    "transformers.quantizers.auto": "pruning_core.plugin.per_layer",
    "transformers.models.auto.configuration_auto": "pruning_core.plugin.by_name",
}


def install() -> None:
    """Register the plug-in now with the registries that are loaded, and with others as soon as they are."""
    for registry in _REGISTRIES:
        if registry in sys.modules:
            _register(registry)
        elif not any(isinstance(finder, _Finder) and finder.registry == registry for finder in sys.meta_path):
            sys.meta_path.insert(0, _Finder(registry))


def _register(registry: str) -> None:
    # If this very module is being imported and has brought transformers in, it registers itself at the end of its import.
    importlib.import_module(_REGISTRIES[registry])


class _Finder(MetaPathFinder):
    """An import finder that waits for one of transformers' registries, wraps its loader, and removes itself."""

    def __init__(self, registry: str) -> None:
        self.registry = registry

    def find_spec(self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None, /) -> ModuleSpec | None:
        if fullname != self.registry:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader, fullname)
        return spec


class _RegisteringLoader(Loader):
    """A loader that loads a module as the wrapped loader does, then registers the plug-in."""

    def __init__(self, wrapped: Loader, registry: str) -> None:
        self._wrapped, self._registry = wrapped, registry

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._wrapped.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._wrapped.exec_module(module)
        _register(self._registry)
