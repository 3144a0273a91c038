"""A model's folder with fewer tokens: tokenizer, embeddings, head and settings, checked text by text.

Which tokens stay: those that the task's texts need, those that spell what has no token (bytes or characters), all that were
added to the vocabulary, those that the settings name, and whatever the request names besides. The order of the tokens stays.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import regex
import torch
from tokenizers import Tokenizer

from pruning_core.data.ledger_texts import read_texts
from pruning_core.data.rows import Rows
from pruning_core.data.token_lists import read_tokens
from pruning_core.errors import DatasetInvalid, ModelUnreadable
from pruning_core.files.companions import SENTENCEPIECE_NAMES, copy_companions
from pruning_core.models.load import load_task_model
from pruning_core.report.vocabulary import GrowthReport, VocabularyReport
from pruning_core.spec.prune import TaskSpec
from pruning_core.spec.tasks import KINDS
from pruning_core.spec.vocabulary import KEEP, PARAM, TEXTS, VocabularySpec
from pruning_core.tasks.base import TaskModel, Uncut
from pruning_core.vocabulary.rules import Rules
from pruning_core.vocabulary.weights import (
    cut_settings,
    ids_in,
    names_by_token,
    read_settings,
    renames_of,
    rows_of,
    write_cut_weights,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# A text, or the words of one.
Text = str | tuple[str, ...]

_CONFIGS = ("config.json", "generation_config.json")
# Files that hold the whole vocabulary under its old ids. tokenizer.json takes the place of all of them.
_OLD = ("vocab.txt", "vocab.json", "merges.txt", "added_tokens.json", *SENTENCEPIECE_NAMES)
_PORTION = 1000
_COMPARED = 8
_LONGEST_COMPARED = 64
_ALIKE = 1e-4
_MOST_SHOWN = 3


def texts_of(task: TaskSpec, rows: Iterable[Rows]) -> list[Text]:
    """Return every text of some splits as the task gives it to the tokenizer: inputs, and labels that are texts."""
    words, found = KINDS[task.type].reads == "words", dict[Text, None]()
    for split in rows:
        for place, row in enumerate(split.texts):
            if words:
                found[row] = None
                continue
            for text in row:
                found[f"{task.prefix or ''}{text}"] = None
            label = None if split.labels is None else split.labels[place]
            if isinstance(label, str):
                found[label] = None
    return list(found)


@dataclass(frozen=True, slots=True)
class CutModel:
    """A model with fewer tokens.

    Attributes:
        task: It, loaded.
        report: What was cut.
        kept: The old ids of its tokens, by their new ones.
    """

    task: TaskModel
    report: VocabularyReport
    kept: Sequence[int]


def cut_vocabulary(
    whole: TaskModel, spec: VocabularySpec, texts: Sequence[Text], others: Mapping[str, Sequence[str]], folder: Path
) -> CutModel:
    """Write a model's folder with fewer tokens, load it, and compare it with the model as it was.

    Args:
        whole: The model.
        spec: Which tokens stay.
        texts: The task's texts, which must become the same tokens as before.
        others: Texts that nobody asked for, by name: by how much they grow is reported.
        folder: Where to write; exists and is empty.

    Raises:
        ModelUnreadable: The model has two vocabularies, or a tokenizer without rules that can be cut; or a text would become
            other tokens, or the outputs would differ.
        DatasetInvalid: A file of the request cannot be read, or names tokens that there are not.
    """
    rules, rows = _rules_of(whole.tokenizer), rows_of(whole.model)
    names = names_by_token(whole.model)
    wanted = [*texts, *([] if spec.texts is None else read_texts(spec.texts, TEXTS, least=1))]
    settings = {name: read_settings(whole.source / name) for name in _CONFIGS}
    named = {old for old in ids_in(list(settings.values())) if 0 <= old < rows}
    tokens = _tokens(rules, spec, wanted)
    ids = {token: old for token, old in rules.ids.items() if token in tokens}
    _check_rows(ids, rows)
    kept = sorted({*ids.values(), *named})
    number = {old: new for new, old in enumerate(kept)}
    _write_tokenizer(whole.source, folder, rules.cut_to(tokens, number), number)
    for name, own in settings.items():
        if own:
            _dump(cut_settings(own, rows, number), folder / name)
    write_cut_weights(whole.source, folder, names, rows, kept, renames=renames_of(whole.model))
    after = load_task_model(folder, whole.task_type, whole.device, pages=whole.pages)
    left = _rules_of(after.tokenizer)
    _compare_tokens(rules, left.tokenizer, wanted, number)
    difference, gained = _compare_outputs(whole, after, _encoded(rules.tokenizer, wanted[:_COMPARED]), number)
    parameters, unknown = whole.parameter_count(), cast("int | None", after.tokenizer.unk_token_id)
    report = VocabularyReport(
        tokens_before=rows,
        tokens_after=len(kept),
        parameters=parameters - after.parameter_count(),
        texts=len(wanted),
        largest_difference=difference,
        gained_nats=gained,
        growth=tuple(_growth(name, own, rules, left, unknown) for name, own in others.items()),
    )
    return CutModel(after.before_cut(Uncut(whole.source, parameters)), report, kept)


def _rules_of(tokenizer: PreTrainedTokenizerBase) -> Rules:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        kind = type(tokenizer).__name__
        raise ModelUnreadable(
            f"a tokenizer of the class {kind} has no tokenizer.json, by whose rules a vocabulary is cut; leave {PARAM} out",
            param=PARAM,
        )
    plain = Tokenizer.from_str(backend.to_str())
    plain.no_padding()
    plain.no_truncation()
    return Rules(plain)


def _tokens(rules: Rules, spec: VocabularySpec, texts: Sequence[Text]) -> set[str]:
    """Return the tokens that stay."""
    number = {old: token for token, old in rules.ids.items()}
    seen = {number[old] for ids in _encoded(rules.tokenizer, texts) for old in ids}
    chosen = {*seen, *_in_scripts(rules, spec.scripts), *_listed(rules, spec)}
    return rules.with_parts({*chosen, *rules.fallback(), *rules.added})


def _in_scripts(rules: Rules, scripts: frozenset[str]) -> set[str]:
    """Return the tokens that are written in some scripts, with digits, punctuation and whatever else is of no script."""
    if not scripts:
        return set()
    allowed = "".join(rf"\p{{Script={script}}}" for script in sorted({*scripts, "Common", "Inherited"}))
    fits = regex.compile(rf"[{allowed}]*")
    letters = {token: rules.letters(token) for token in rules.own}
    return {token for token, text in letters.items() if text is not None and fits.fullmatch(text)}


def _listed(rules: Rules, spec: VocabularySpec) -> set[str]:
    if spec.tokens_file is None:
        return set()
    listed = read_tokens(spec.tokens_file, KEEP)
    unknown = [token for token in listed if token not in rules.ids]
    if unknown:
        shown = ", ".join(repr(token[:24]) for token in unknown[:_MOST_SHOWN])
        raise DatasetInvalid(
            f"{len(unknown)} of the {len(listed)} listed tokens are none of this model's, such as {shown}; tokens are listed "
            "as its tokenizer spells them, as in its vocab.txt or tokenizer.json",
            param=KEEP,
        )
    return set(listed)


def _encoded(tokenizer: Tokenizer, texts: Sequence[Text]) -> Iterator[list[int]]:
    """Yield the ids of each text, with what is inserted around it."""
    for start in range(0, len(texts), _PORTION):
        part = texts[start : start + _PORTION]
        for words in (False, True):
            own = [text if isinstance(text, str) else list(text) for text in part if isinstance(text, tuple) == words]
            if own:
                yield from (one.ids for one in tokenizer.encode_batch(cast("Any", own), is_pretokenized=words))


def _check_rows(ids: Mapping[str, int], rows: int) -> None:
    lost = next((token for token, old in ids.items() if old >= rows), None)
    if lost is not None:
        raise ModelUnreadable(
            f"the token {lost[:40]!r} has the id {ids[lost]}, and the model has {rows} embeddings: resize them, save the model "
            f"again, or leave {PARAM} out",
            param=PARAM,
        )


def _write_tokenizer(source: Path, folder: Path, rules: Mapping[str, Any], number: Mapping[int, int]) -> None:
    """Write the new tokenizer, and copy what else lies beside the weights."""
    copy_companions(source, folder, but=(*_OLD, *_CONFIGS, "tokenizer.json"))
    _dump(rules, folder / "tokenizer.json")
    config = read_settings(folder / "tokenizer_config.json")
    if "added_tokens_decoder" in config:
        added = cast("dict[str, Any]", config["added_tokens_decoder"])
        config["added_tokens_decoder"] = {str(number[int(old)]): own for old, own in added.items() if int(old) in number}
    if config:
        _dump(config, folder / "tokenizer_config.json")


def _dump(value: Mapping[str, Any], path: Path) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _compare_tokens(before: Rules, after: Tokenizer, texts: Sequence[Text], number: Mapping[int, int]) -> None:
    """Check that every text becomes the same tokens.

    Of a Unigram, their order within a text may differ: where several best paths have the same score, as along a line of
    underscores, the last bit decides, which the library does not keep when it writes scores and reads them again.

    Raises:
        ModelUnreadable: One does not.
    """
    for own, (old, new) in enumerate(zip(_encoded(before.tokenizer, texts), _encoded(after, texts), strict=True)):
        expected = [number[one] for one in old]
        if expected != new and not (before.kind == "Unigram" and sorted(expected) == sorted(new)):
            raise ModelUnreadable(
                f"text {own + 1} of the data would become other tokens with fewer of them: the rules of this tokenizer are not "
                f"among those that can be cut; leave {PARAM} out",
                param=PARAM,
            )


@torch.no_grad()
def _compare_outputs(
    before: TaskModel, after: TaskModel, texts: Iterable[list[int]], number: Mapping[int, int]
) -> tuple[float, float | None]:
    """Compare the outputs of both models on the same tokens.

    Returns:
        The largest difference; and, for outputs over the vocabulary, the mean of minus the log of the probability that the
        tokens that stay have together, in nats: by so much the loss falls.

    Raises:
        ModelUnreadable: They differ by more than rounding.
    """
    index, largest, gained = torch.tensor(list(number)), 0.0, list[float]()
    longest = before.longest(_LONGEST_COMPARED)
    for ids in texts:
        old = torch.tensor([ids[:longest]], device=before.device)
        new = torch.tensor([[number[one] for one in ids[:longest]]], device=before.device)
        theirs, ours = (_output(own, own_ids) for own, own_ids in ((before, old), (after, new)))
        if theirs.shape[-1] == rows_of(before.model) != ours.shape[-1]:
            gained.append(float((theirs.logsumexp(-1) - theirs[..., index].logsumexp(-1)).mean()))
            theirs = theirs[..., index]
        largest = max(largest, float((theirs - ours).abs().max()))
    if not largest <= _ALIKE:
        raise ModelUnreadable(
            f"with fewer tokens the model's outputs would differ by up to {largest:.2g} on the same texts: ids mean something "
            f"in it that was not found; leave {PARAM} out",
            param=PARAM,
        )
    return largest, sum(gained) / len(gained) if gained else None


def _output(model: TaskModel, ids: torch.Tensor) -> torch.Tensor:
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if model.model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids[:, :8]
    return cast("torch.Tensor", model.model(**inputs)[0]).float().cpu()


def _growth(name: str, texts: Sequence[str], before: Rules, after: Rules, unknown: int | None) -> GrowthReport:
    old, new = ([one for own in _encoded(rules.tokenizer, texts) for one in own] for rules in (before, after))
    return GrowthReport(name=name, before=len(old), after=len(new), unknown=new.count(unknown) if unknown is not None else 0)
