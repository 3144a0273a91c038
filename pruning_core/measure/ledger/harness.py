"""Tasks of lm-eval, of a user's own folder: its prompts, requests and metrics, with our models behind them.

No code of a task is run: `pruning_core.data.ledger_tasks` leaves data and templates alone, and templates, which lm-eval renders
without bounds, are rendered in Jinja's sandbox here. lm-eval's models, downloads and caches are not used.
"""

from __future__ import annotations

import contextlib
import logging
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, cast

import numpy as np
from jinja2 import BaseLoader, StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.api.task import ConfigurableTask

from pruning_core.data.ledger_tasks import PARAM, HarnessTask
from pruning_core.errors import DatasetInvalid
from pruning_core.measure.ledger.base import Tell, TokenPart, counted_samples
from pruning_core.measure.ledger.rows import Subject
from pruning_core.report.ledger import LedgerRow
from pruning_core.spec.prune import TaskSpec
from pruning_core.tasks.base import TaskModel
from pruning_core.tasks.batch import UNCOUNTED
from pruning_core.tasks.row_forms import shares

# Tokens of a prompt with its answer; longer ones lose their beginning, as lm-eval cuts them.
_LONGEST = 512
_SPLIT = "test"

logging.getLogger("lm_eval").setLevel(logging.ERROR)
# For the whole life of the process: the templates are a stranger's, and the environment of lm-eval lets them reach Python.
utils.env = ImmutableSandboxedEnvironment(loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True)
cast("Any", utils.env.filters)["regex_replace"] = utils.regex_replace


class _Asked(TemplateLM):
    """Turns requests into tokens as lm-eval does, and answers nothing."""

    def __init__(self, model: TaskModel) -> None:
        super().__init__()
        self._own: Any = model.tokenizer

    @property
    def eot_token_id(self) -> int:
        own = self._own
        return next((int(token) for token in (own.bos_token_id, own.eos_token_id) if token is not None), 0)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        del kwargs
        special = add_special_tokens is not False
        return list(self._own(string, add_special_tokens=special, truncation=False, verbose=False)["input_ids"])

    def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> Any:
        del kwargs
        return [(context, answer) for _, context, answer in requests]

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> NoReturn:
        raise NotImplementedError

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> NoReturn:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class HarnessPart(TokenPart):
    """One task: its rows, and the requests of each as samples.

    Attributes:
        own: The task as lm-eval has it.
        docs: Its rows.
        requests: Number of requests of each row.
        answers: The tokens of each request's answer.
        metric: The metric of the report.
    """

    own: ConfigurableTask
    docs: tuple[Any, ...]
    requests: tuple[int, ...]
    answers: tuple[list[int], ...]
    metric: str

    @classmethod
    def of(cls, model: TaskModel, task: TaskSpec, given: HarnessTask, most: int) -> HarnessPart:
        """Make the requests of the first rows.

        Raises:
            DatasetInvalid: A template does not fit the data.
        """
        try:
            own = _configured(given, most)
            docs = tuple(cast("Any", own).eval_docs)
            asked = [_requests(own, doc) for doc in docs]
            pairs = cast("Any", _Asked(model)).loglikelihood([one for row in asked for one in row], disable_tqdm=True)
        except Exception as error:  # whatever a stranger's template makes lm-eval raise
            said = f"{type(error).__name__}: {error}".splitlines()[0][:160]
            raise DatasetInvalid(
                f"lm-eval cannot read the task {given.name}: {said}; try it with lm-eval itself", param=PARAM
            ) from error
        samples = [_sample(context, answer, model.longest(_LONGEST)) for context, answer in pairs]
        ids, counted = [own for own, _ in samples], [own for _, own in samples]
        tokens = counted_samples(model, ids, counted)
        answers = tuple([token for token in own if token != UNCOUNTED] for own in counted)
        return cls(given.name, tokens, task, own, docs, tuple(map(len, asked)), answers, given.metric)

    def observe(self, model: TaskModel, on_step: Tell) -> np.ndarray:
        """Judge each row by the task's metric: right or wrong."""
        seen = zip(self.seen(model, on_step), self.answers, strict=True)
        found = [(-float(own[0]), own[1:].long().tolist() == answer) for own, answer in seen]
        right: list[bool] = []
        at = 0
        for doc, count in zip(self.docs, self.requests, strict=True):
            with np.errstate(all="ignore"), contextlib.redirect_stdout(None):
                scores = cast("dict[str, float]", self.own.process_results(doc, found[at : at + count]))
            right.append(float(scores[self.metric]) > 0)
            at += count
        return np.array(right)

    def rows(self, dense: np.ndarray, pruned: np.ndarray, seed: int) -> list[LedgerRow]:
        """Judge both."""
        return [self.subjects[0].row(shares(dense, pruned), seed)]

    @property
    def subjects(self) -> tuple[Subject]:
        """The task's rows."""
        choices = self.own.OUTPUT_TYPE == "multiple_choice"
        chance = float(np.mean([1 / count for count in self.requests])) if choices else None
        return (Subject(self.name, "lm_eval", "row", metric=self.metric, chance=chance),)


def _configured(given: HarnessTask, most: int) -> ConfigurableTask:
    import datasets

    data = datasets.Dataset.from_list(list(given.docs[:most]))

    def given_data(**_options: object) -> dict[str, Any]:
        return {_SPLIT: data}

    metric = {"metric": given.metric, "aggregation": "mean", "higher_is_better": True}
    config = {
        **given.config,
        "custom_dataset": given_data,
        "test_split": _SPLIT,
        "num_fewshot": 0,
        "metric_list": [metric],
    }
    return ConfigurableTask(config=config)


def _requests(own: ConfigurableTask, doc: Any) -> list[Any]:
    context = cast("Any", own).fewshot_context(doc, num_fewshot=0)
    made = cast("Any", own).construct_requests(doc, context)
    return list(made) if isinstance(made, list) else [made]


def _sample(context: Sequence[int], answer: Sequence[int], longest: int) -> tuple[array[int], array[int]]:
    """Return a request's tokens and those of them that count, its answer's; the beginning is cut where it is too long."""
    answer = list(answer)[: longest - 1]
    context = list(context)[-(longest - len(answer)) :] or [0]
    return array("l", [*context, *answer]), array("l", [*([UNCOUNTED] * len(context)), *answer])
