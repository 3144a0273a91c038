"""What llama.cpp makes of a file, beside what transformers makes of the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from gguf import PoolingType
from torch import Tensor

from pruning_core.artifacts.exports.gguf.base import NotHeld
from pruning_core.artifacts.exports.gguf.interpreter import look
from pruning_core.shapes import Float
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
# Largest difference of outputs, relative to the largest, that a type of file explains. Positions whose two largest logits are
# closer than that decide nothing. Types of few bits change a model: for them the figures are told, and nothing is required.
_TOLERANCE: Mapping[str, float] = {"F16": 0.02, "BF16": 0.05, "Q8_0": 0.1}


@dataclass(frozen=True, slots=True)
class Proof:
    """How close llama.cpp's outputs are to transformers'.

    Attributes:
        difference: The largest difference, relative to the largest output.
        note: A sentence with the figures.
    """

    difference: float
    note: str


def prove(python: Path, file: Path, kind: str, model: TaskModel, pooling: PoolingType | None) -> Proof:
    """Compare tokens, chat template and outputs.

    Args:
        python: The interpreter that has llama.cpp.
        file: The file.
        kind: Its type.
        model: The checkpoint.
        pooling: Pooling of an encoder; None for a decoder.

    Raises:
        NotHeld: They are not the same, or llama.cpp does not load the file.
    """
    tokens = [cast("list[int]", model.tokenizer(text)["input_ids"]) for text in TEXTS]
    ids = [own[:_LENGTH] for own in tokens]
    wanted = _outputs(model, ids, pooling)
    seen = look(python, file, TEXTS, ids, width=None if pooling is None else wanted.shape[-1])
    _require_tokens(seen.tokens, tokens)
    template = getattr(model.tokenizer, "chat_template", None)
    if isinstance(template, str) and seen.template != template:
        raise NotHeld("llama.cpp reads another chat template than the tokenizer has")
    found = torch.from_numpy(seen.outputs)
    if found.shape != wanted.shape or not bool(found.isfinite().all()):
        raise NotHeld(f"llama.cpp gives outputs of the shape {tuple(found.shape)} or infinite ones, not {tuple(wanted.shape)}")
    largest = float(wanted.abs().max())
    difference = float((found - wanted).abs().max()) / largest
    tolerance = _TOLERANCE.get(kind)
    if tolerance is not None and difference > tolerance:
        raise NotHeld(f"llama.cpp's outputs differ by {difference:.3g} of the largest, more than {tolerance:g}")
    said = f"llama.cpp makes the same tokens of {len(TEXTS)} texts"
    if pooling is not None:
        return Proof(difference, said)
    best = wanted.topk(2, dim=-1).values
    decided = best[:, 0] - best[:, 1] > (tolerance or 0.0) * largest
    agree = (found.argmax(-1) == wanted.argmax(-1))[decided]
    of_those = f" whose margin exceeds {tolerance:g} of the largest logit" if tolerance else ""
    share = float(agree.double().mean()) if len(agree) else 1.0
    if tolerance is not None and share < 1:
        raise NotHeld(f"llama.cpp's likeliest token is another at {1 - share:.1%} of {len(agree)} positions{of_those}")
    return Proof(difference, f"{said}, and has the same likeliest token at {share:.1%} of {len(agree)} positions{of_those}")


def _require_tokens(found: Sequence[Sequence[int]], wanted: Sequence[Sequence[int]]) -> None:
    odd = [text for text, own, other in zip(TEXTS, found, wanted, strict=True) if list(own) != list(other)]
    if odd:
        raise NotHeld(f"llama.cpp makes other tokens of {len(odd)} of {len(TEXTS)} texts, such as {odd[0]!r}")


@torch.inference_mode()
def _outputs(model: TaskModel, ids: Sequence[Sequence[int]], pooling: PoolingType | None) -> Float[Tensor, "n v"]:
    """Return the logits of all positions of all texts, or an encoder's output for each text."""
    found: list[Tensor] = []
    for own in ids:
        result = model.model(input_ids=torch.tensor([list(own)], device=model.device))
        match pooling:
            case None:
                found.append(result.logits[0])
            case PoolingType.MEAN:
                found.append(result.last_hidden_state[0].mean(0, keepdim=True))
            case PoolingType.CLS:
                found.append(result.last_hidden_state[0, :1])
            case PoolingType.LAST:
                found.append(result.last_hidden_state[0, -1:])
            case _:
                found.append(result.logits)
    return torch.cat(found).float().cpu()
