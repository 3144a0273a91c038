"""What llama.cpp makes of a file, beside what transformers makes of the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from gguf import PoolingType
from torch import Tensor

from pruning_core.artifacts.exports.gguf.base import NotHeld
from pruning_core.artifacts.exports.gguf.interpreter import look
from pruning_core.shapes import Bool, Float
from pruning_core.tasks.base import TaskModel

# Texts of the kinds on which tokenizers differ: cases, numbers, spaces, line breaks, code, marks, scripts and pictures.
TEXTS: tuple[str, ...] = (
    "The quick brown fox jumps over the lazy dog.",
    "In 1969, 3 people flew 384400 km to the Moon and back, in 195 hours.",
    "I've told you that they're HERE, and we'll see who'd WE'VE met.",
    "Prices rose by 12.5% to $1,234,567.89 (from $1,097,393.68).",
    "def add(a, b):\n    return a + b  # a comment\n\n\nprint(add(2, 3))",
    "    four spaces, then\ta tab,  two spaces and the end   ",
    "One line\nanother line\r\na third\n\n\nand the last",
    "Where is the café? Naïve façade, jalapeño, Zürich, Œuvre.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "今天天气很好,我们去公园散步吧。",
    "吾輩は猫である。名前はまだ無い。",
    "مرحبا بالعالم، كيف حالك اليوم؟",
    "नमस्ते दुनिया, आप कैसे हैं?",
    "Emoji: 🚀🦙 and ✅, and a family 👩‍👩‍👧‍👦!",
    "https://example.org/path?query=1&other=two#part",
    "A_snake_case and aCamelCase, ALLCAPS; x-y-z... [brackets] {braces} <tags/>",
    "!!! ??? ... --- === ***",
    "Mr. O'Neill's dog isn't the neighbours' dog: 'tis \"ours\".",
    "0 00 000 0000 00000 000000 3.14159e-10",
    "Once upon a time there was a small village at the foot of a high mountain.",
)
# Positions of a text that are computed.
_LENGTH = 24
# What a type of file explains: the root mean square of differences, relative to how far outputs vary. Beyond it, tensors are in
# the wrong place. Types of few bits change a model by themselves, and for them the figures are told.
_NOISE: Mapping[str, float] = {"F16": 0.02, "BF16": 0.05, "Q8_0": 0.2}
_MOST_NOISE = 1.0  # outputs that have nothing to do with each other are 1.4 off
# Positions whose two largest logits are closer than that, relative to the largest logit, decide nothing. For these types the
# likeliest token must be transformers' at all others.
_EXACT: Mapping[str, float] = {"F16": 0.02, "BF16": 0.05}
_MARGIN = 0.02


@dataclass(frozen=True, slots=True)
class Reference:
    """What transformers makes of the texts.

    Attributes:
        tokens: The tokens of each text.
        outputs: The logits of the first positions of all texts, one after the other; or an encoder's output for each text.
        template: The chat template; None without one.
        decoder: Whether the outputs are logits of tokens.
        marked: A text with special tokens in it, as chats are; its tokens are the last.
        differs: Whether a text is known to have other tokens in llama.cpp (`tokens.Vocabulary`).
    """

    tokens: list[list[int]]
    outputs: Float[Tensor, "n v"]
    template: str | None
    decoder: bool
    marked: str
    differs: Callable[[str], bool]

    @property
    def ids(self) -> list[list[int]]:
        """The tokens that were computed."""
        return [own[:_LENGTH] for own in self.tokens[: len(TEXTS)]]


@dataclass(frozen=True, slots=True)
class Proof:
    """How close llama.cpp's outputs are to transformers'.

    Attributes:
        difference: The largest difference, relative to the largest output.
        note: A sentence with the figures.
    """

    difference: float
    note: str


@torch.inference_mode()
def reference(model: TaskModel, pooling: PoolingType | None, differs: Callable[[str], bool]) -> Reference:
    """Run a checkpoint in transformers.

    Args:
        model: The checkpoint.
        pooling: Pooling of an encoder; None for a decoder.
        differs: Whether a text is known to have other tokens in llama.cpp.
    """
    mark = str(model.tokenizer.eos_token or model.tokenizer.sep_token or "")
    marked = f"One{mark} two {mark}three{mark}\nfour"
    tokens = [cast("list[int]", model.tokenizer(text)["input_ids"]) for text in (*TEXTS, marked)]
    lengths = [min(_LENGTH, len(own)) for own in tokens[: len(TEXTS)]]
    ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    for row, own, length in zip(ids, tokens, lengths, strict=False):
        row[:length] = torch.tensor(own[:length])
    real = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    result = model.model(input_ids=ids.to(model.device), attention_mask=real.to(model.device).long())
    template = getattr(model.tokenizer, "chat_template", None)
    outputs = _read(result, pooling, real).float().cpu()
    template = template if isinstance(template, str) else None
    return Reference(tokens, outputs, template, pooling is None, marked, differs)


def _read(result: Any, pooling: PoolingType | None, real: Bool[Tensor, "t s"]) -> Float[Tensor, "n v"]:
    match pooling:
        case None:
            return result.logits.cpu()[real]
        case PoolingType.MEAN:
            states = result.last_hidden_state.cpu()
            return (states * real[..., None]).sum(1) / real.sum(1, keepdim=True)
        case PoolingType.CLS:
            return result.last_hidden_state[:, 0]
        case PoolingType.LAST:
            return result.last_hidden_state.cpu()[torch.arange(len(real)), real.sum(1) - 1]
        case _:
            return result.logits


def prove(python: Path, file: Path, kind: str, wanted: Reference) -> Proof:
    """Compare tokens, chat template and outputs.

    Args:
        python: The interpreter that has llama.cpp.
        file: The file.
        kind: Its type.
        wanted: What transformers makes of the checkpoint.

    Raises:
        NotHeld: They are not the same, or llama.cpp does not load the file.
    """
    seen = look(python, file, (*TEXTS, wanted.marked), wanted.ids, width=None if wanted.decoder else wanted.outputs.shape[-1])
    texts = _require_tokens(seen.tokens, wanted)
    if seen.template != wanted.template:
        raise NotHeld("llama.cpp reads another chat template than the tokenizer has")
    found, outputs = torch.from_numpy(seen.outputs), wanted.outputs
    if found.shape != outputs.shape or not bool(found.isfinite().all()):
        raise NotHeld(f"llama.cpp gives outputs of the shape {tuple(found.shape)} or infinite ones, not {tuple(outputs.shape)}")
    noise = float((found - outputs).square().mean().sqrt() / outputs.std())
    most = _NOISE.get(kind, _MOST_NOISE)
    if noise > most:
        raise NotHeld(f"llama.cpp's outputs are {noise:.3g} off, relative to how far outputs vary: {kind} explains {most:g}")
    difference = float((found - outputs).abs().max() / outputs.abs().max())
    chats = "" if seen.tokens[-1] == wanted.tokens[-1] else " (behind special tokens in a text, as in chats, it makes others)"
    said = f"llama.cpp makes the same tokens of {texts} texts{chats}"
    if not wanted.decoder:
        return Proof(difference, f"{said}, and outputs that are {noise:.3g} off, relative to how far they vary")
    return Proof(difference, f"{said}, {_agreement(found, outputs, kind)}")


def _agreement(found: Float[Tensor, "n v"], wanted: Float[Tensor, "n v"], kind: str) -> str:
    """Say how often the likeliest tokens agree.

    Raises:
        NotHeld: They must, and do not.
    """
    best, same = wanted.topk(2, dim=-1).values, found.argmax(-1) == wanted.argmax(-1)
    margin = _EXACT.get(kind, _MARGIN)
    decided = best[:, 0] - best[:, 1] > margin * wanted.abs().max()
    share = float(same[decided].double().mean()) if bool(decided.any()) else 1.0
    if kind in _EXACT and share < 1:
        raise NotHeld(
            f"llama.cpp's likeliest token is another at {1 - share:.2%} of {int(decided.sum())} positions that decide"
        )
    everywhere = float(same.double().mean())
    return (
        f"and has the same likeliest token at {everywhere:.1%} of {len(same)} positions, and at {share:.1%} of the "
        f"{int(decided.sum())} whose margin exceeds {margin:g} of the largest logit"
    )


def _require_tokens(found: Sequence[Sequence[int]], wanted: Reference) -> int:
    """Return how many texts were compared: all but those of which other tokens are known to be made.

    Raises:
        NotHeld: The tokens of one are others.
    """
    compared = [
        (text, list(own) == list(other))
        for text, own, other in zip(TEXTS, found, wanted.tokens, strict=False)
        if not wanted.differs(text)
    ]
    odd = [text for text, same in compared if not same]
    if odd:
        raise NotHeld(f"llama.cpp makes other tokens of {len(odd)} of {len(compared)} texts, such as {odd[0]!r}")
    return len(compared)
