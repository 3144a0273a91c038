"""The check of a vocabulary that is to be cut, as far as files tell. Torch-free."""

from __future__ import annotations

from pathlib import Path

from pruning_core.data.ledger_texts import read_texts
from pruning_core.data.token_lists import read_tokens
from pruning_core.errors import ModelUnreadable, together
from pruning_core.files.checkpoint import read_checkpoint
from pruning_core.spec.prune import PruneSpec
from pruning_core.spec.vocabulary import KEEP, PARAM, TEXTS

_TARGET_VOCABULARY = "target_vocab.json"


def check_vocabulary_inputs(spec: PruneSpec) -> None:
    """Refuse files of tokens or texts that cannot be read.

    Raises:
        DatasetInvalid: One is so.
    """
    own = spec.vocabulary
    if own is None:
        return

    def tokens() -> None:
        if own.tokens_file is not None:
            read_tokens(own.tokens_file, KEEP)

    def texts() -> None:
        if own.texts is not None:
            read_texts(own.texts, TEXTS, least=1)

    together((tokens, texts))


def check_cuttable(spec: PruneSpec, folder: Path) -> None:
    """Refuse a model whose vocabulary cannot be cut.

    Raises:
        ModelUnreadable: It has two vocabularies, or its matrices are stored as integers.
    """
    if spec.vocabulary is None:
        return
    config = read_checkpoint(folder).config
    if (folder / _TARGET_VOCABULARY).is_file() or config.get("share_encoder_decoder_embeddings") is False:
        raise ModelUnreadable(
            f"the model has a vocabulary for each of two languages, and one can be cut; leave {PARAM} out", param=PARAM
        )
    own = config.get("coppice")
    if isinstance(own, dict) and own.get("rounded"):
        raise ModelUnreadable(
            "the model's matrices are stored as integers: cut the vocabulary of the model that it was made of, or leave "
            f"{PARAM} out",
            param=PARAM,
        )
