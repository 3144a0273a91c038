"""The check of what a ledger reads: texts and tasks that the user names. Torch-free."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec

from pruning_core.checks.findings import Findings
from pruning_core.data.ledger_tasks import PARAM, read_tasks
from pruning_core.data.ledger_texts import note_on_pieces, pieces_of, read_texts
from pruning_core.errors import DatasetInvalid, together
from pruning_core.spec.ledger import EMBEDDERS, LEDGER
from pruning_core.spec.prune import PruneSpec

EXTRA = "pip install 'coppice-prune[ledger]'"


def check_ledger_inputs(spec: PruneSpec) -> Findings:
    """Refuse texts that cannot be read, are empty or too short, and tasks of lm-eval that are not read here.

    Returns:
        A note for each text that is too short to judge an embedder by; and what was not looked at: tasks, where the
        installation has no reader of YAML, as an API alone has not.

    Raises:
        DatasetInvalid: One is so.
    """
    ledger = spec.evaluation.ledger
    if ledger is None:
        return Findings()
    notes: list[str] = []

    def text(name: str, place: str) -> None:
        texts = read_texts(place, f"{LEDGER}.texts.{name}")
        if spec.task.type in EMBEDDERS and (said := note_on_pieces(name, len(pieces_of(texts)))) is not None:
            notes.append(said)

    checks = [partial(text, name, place) for name, place in ledger.texts.items()]
    tasks = [] if ledger.lm_eval is None else [partial(read_tasks, ledger.lm_eval)]
    readable = find_spec("yaml") is not None
    together([*checks, *(tasks if readable else ())])
    return Findings(notes=tuple(notes), not_looked_at=("the tasks of lm-eval",) if tasks and not readable else ())


def check_harness_installed() -> None:
    """Refuse tasks of lm-eval where it is not installed: asked where the job runs, as a front end need not have it.

    Raises:
        DatasetInvalid: It is not.
    """
    if find_spec("lm_eval") is None:
        raise DatasetInvalid(
            f"evaluation.ledger.lm_eval needs lm-eval, which is not installed where this job runs: {EXTRA}; or leave it out",
            param=PARAM,
        )
