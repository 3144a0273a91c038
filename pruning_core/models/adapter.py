"""LoRA adapters, merged into their base by PEFT."""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

from pruning_core.checks.adapter import PARAM, WEIGHTS, AdapterFacts, check_adapter, read_adapter
from pruning_core.checks.heads import lacks_weights
from pruning_core.checks.model import stored_type
from pruning_core.errors import ModelUnreadable, PruningError
from pruning_core.files.checkpoint import ADAPTER_CONFIG, read_checkpoint
from pruning_core.files.companions import TOKENIZER_NAMES, copy_companions
from pruning_core.files.digests import sha256_of
from pruning_core.machine.resources import raise_if_exhausted
from pruning_core.models.load import quiet_transformers, reason_of
from pruning_core.models.plain import load_config, without_hooks
from pruning_core.report.adapter import AdapterReport
from pruning_core.spec.prune import AUTO_CLASSES, TaskType

_HEADS = ("classifier", "score", "classifier.out_proj", "qa_outputs")


def merge_adapter(base: Path, adapter: Path, task_type: TaskType, folder: Path) -> AdapterReport:
    """Write a checkpoint of a base with a LoRA adapter in its matrices.

    Args:
        base: Folder of the base's checkpoint.
        adapter: Folder of the adapter.
        task_type: Decides the class that the base is loaded by; the adapter may bring its head.
        folder: Where to write; exists and is empty.

    Raises:
        ModelUnreadable: The adapter is none, or of another base, or a head is in neither.
    """
    facts = read_adapter(adapter)
    own = read_checkpoint(base)
    check_adapter(facts, own.shapes)
    try:
        with quiet_transformers(), without_hooks(base) as plain:
            merged = _merged(plain, adapter, facts, task_type)
            merged.to(getattr(torch, stored_type(own.dtypes))).save_pretrained(folder)
    except PruningError:
        raise
    except Exception as error:  # of files that are not as PEFT and transformers expect, they raise whatever comes
        raise_if_exhausted(error, "the adapter was merged")
        raise ModelUnreadable(f"PEFT cannot merge the adapter: {reason_of(error, base, adapter)}", param=PARAM) from error
    # Tokens may have come with the adapter: then their tokenizer lies beside it.
    tokens = adapter if any((adapter / name).is_file() for name in TOKENIZER_NAMES) else base
    copy_companions(tokens, folder, but=("README.md",))  # the base's names the licence
    copy_companions(base, folder, but=TOKENIZER_NAMES)
    digests = {name: sha256_of(adapter / name) for name in (ADAPTER_CONFIG, WEIGHTS)}
    return AdapterReport(name=adapter.name, rank=facts.rank, modules=len(facts.changes), sha256=digests)


def _merged(base: Path, adapter: Path, facts: AdapterFacts, task_type: TaskType) -> Any:
    import peft
    import transformers

    auto: Any = getattr(transformers, AUTO_CLASSES[task_type])
    config: Any = load_config(base, torch.float32)
    labels = [
        shape[0] for name, shape in facts.shapes.items() if name.removesuffix(".weight").endswith(_HEADS) and len(shape) == 2
    ]
    if labels and labels[0] != config.num_labels:
        config.num_labels = labels[0]
    model, info = auto.from_pretrained(
        base,
        config=config,
        dtype=torch.float32,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    missing = [name for name in info["missing_keys"] if name not in facts.shapes and "pooler" not in name]
    if missing:
        raise lacks_weights(task_type, ", ".join(sorted(missing)[:3]))
    rows = next((shape[0] for name, shape in facts.shapes.items() if name.endswith("embed_tokens.weight")), None)
    if rows is not None and rows != model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(rows, mean_resizing=False)
    with tempfile.TemporaryDirectory(prefix="coppice-adapter-") as name, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of PEFT's use of transformers: nobody here can heed it
        clean = Path(name)  # no setting but those that were looked at
        (clean / ADAPTER_CONFIG).write_text(json.dumps(dict(facts.settings)), encoding="utf-8")
        shutil.copyfile(adapter / WEIGHTS, clean / WEIGHTS)
        with_adapter: Any = peft.PeftModel.from_pretrained(model, str(clean), torch_device="cpu")
        return with_adapter.merge_and_unload(safe_merge=True)
