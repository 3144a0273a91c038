"""`LedgerSpec`, which capabilities beside the task are judged: on texts, and tasks of the user's own. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator, Field, StringConstraints, field_validator

from pruning_core.spec.frozen import Frozen
from pruning_core.spec.tasks import TaskType

LEDGER = "evaluation.ledger"
# Tasks whose models have a ledger.
DECODERS: tuple[TaskType, ...] = ("text-generation",)
EMBEDDERS: tuple[TaskType, ...] = ("feature-extraction", "sentence-similarity")

MOST_TEXTS = 8
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _-]{0,31}", re.ASCII)

Place = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1024)]


class LedgerSpec(Frozen):
    """The ledger of capabilities: what the model could do beside its task, and whether it still can."""

    texts: dict[str, Place] = Field(
        default_factory=dict[str, str],
        max_length=MOST_TEXTS,
        description="Texts to judge on, by a name such as german: a file (.txt, or .jsonl with a text in each line), a folder "
        "of such files, or the id of an upload.",
    )
    lm_eval: Place | None = Field(
        default=None,
        description="Folder of tasks for lm-eval (YAML files with their data beside them), or the id of an upload. No code of "
        "it is run.",
    )
    items: int = Field(
        default=64,
        ge=12,
        le=512,
        description="Blocks of each text, cloze items of each text, and rows of each lm-eval task.",
    )

    @field_validator("texts")
    @classmethod
    def _names(cls, texts: dict[str, str]) -> dict[str, str]:
        wrong = next((name for name in texts if not _NAME.fullmatch(name)), None)
        if wrong is not None:
            raise ValueError(
                f"a text's name has up to 32 letters, digits, spaces, - and _, such as german, and begins with a letter or a "
                f"digit; got {wrong[:40]!r}"
            )
        return dict(sorted(texts.items()))  # equal specs mean equal work

    @property
    def places(self) -> dict[str, str]:
        """What is read, by the dotted path of its field."""
        found = {f"{LEDGER}.texts.{name}": place for name, place in self.texts.items()}
        return found if self.lm_eval is None else {**found, f"{LEDGER}.lm_eval": self.lm_eval}

    def at(self, places: Mapping[str, str]) -> LedgerSpec:
        """Return the same ledger with other places, by the dotted paths of their fields; others stay."""
        own = {**self.places, **places}
        return self.but(
            texts={name: own[f"{LEDGER}.texts.{name}"] for name in self.texts},
            lm_eval=None if self.lm_eval is None else own[f"{LEDGER}.lm_eval"],
        )


def _expand(value: object) -> object:
    """Turn ``true`` into the ledger of made texts, and ``false`` into none."""
    return LedgerSpec() if value is True else None if value is False else value


Ledger = Annotated[LedgerSpec | None, BeforeValidator(_expand, json_schema_input_type=bool | LedgerSpec | None)]


def check_ledger(ledger: LedgerSpec | None, task: TaskType) -> None:
    """Refuse a ledger for models that have none.

    Raises:
        ValueError: The task is of another kind, or the ledger names tasks of lm-eval for a model that writes no text.
    """
    if ledger is None:
        return
    if task not in (*DECODERS, *EMBEDDERS):
        takers = ", ".join((*DECODERS, *EMBEDDERS))
        raise ValueError(f"a ledger is for decoders and embedders ({takers}), and not for {task}; leave it out")
    if ledger.lm_eval is not None and task not in DECODERS:
        raise ValueError(f"lm_eval is for {', '.join(DECODERS)}, as its tasks need a model that writes; leave it out")
