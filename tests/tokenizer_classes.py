"""Which class of transformers reads a tokenizer, and what kind of vocabulary it needs: a file of `pruning_core.checks`.

Run as a module to write the file anew: ``python -m tests.tokenizer_classes``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

PLACE = Path(__file__).parents[1] / "pruning_core" / "checks" / "tokenizer_classes.json"
NAMED = re.compile(r"(?!Auto)\w+(Tokenizer|TokenizerFast|Backend)")  # what `checks.hook_rules` lets through


def text() -> str:
    """Return the file's text: the class of each model type that submit knows, and the kind of each class that rebuilds one."""
    from transformers.models.auto.tokenization_auto import (
        MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS,
        TOKENIZER_MAPPING_NAMES,
        tokenizer_class_from_name,
    )

    from pruning_core.checks.heads import LOADED_BY

    names = sorted({name.removesuffix("Fast") for name in TOKENIZER_MAPPING_NAMES.values() if name})
    kinds: dict[str, list[str]] = {}
    for name in names:
        found = tokenizer_class_from_name(name)
        model = getattr(found, "model", None)
        if model is not None:
            kinds.setdefault(model.__name__, []).append(name)
    known = {name: (TOKENIZER_MAPPING_NAMES.get(name) or "").removesuffix("Fast") for name in sorted(LOADED_BY)}
    said = {
        "of_types": {name: own for name, own in known.items() if own},
        "types_alone": sorted(MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS),
        "kinds": kinds,
        "own_files": _own_files(),
    }
    return json.dumps(said, indent=1, sort_keys=True) + "\n"


def _own_files() -> dict[str, list[str] | None]:
    """List the classes that do not read tokenizer.json, with the files that they read; null for what is no tokenizer at all."""
    import transformers
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name

    names = {name for name in (*TOKENIZER_MAPPING_NAMES.values(), *dir(transformers)) if name and NAMED.fullmatch(name)}
    found: dict[str, list[str] | None] = {}
    for name in {name.removesuffix("Fast") for name in names} - {"PythonBackend", "PreTrainedTokenizer"}:
        own = tokenizer_class_from_name(name)
        if not (isinstance(own, type) and issubclass(own, transformers.PreTrainedTokenizerBase)):
            found[name] = None
        elif not issubclass(own, transformers.TokenizersBackend):
            found[name] = sorted(own.vocab_files_names.values())
    return found


if __name__ == "__main__":
    PLACE.write_text(text(), encoding="utf-8")
