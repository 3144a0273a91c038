"""Runs llama.cpp, in an interpreter that has `llama_cpp` and in a process of its own. It imports nothing of ours.

    python -I in_llama_cpp.py JOB

JOB is a folder with job.json, which names what to do: ``quantize`` a file, or ``read`` one. The answer is answer.json there,
and outputs.npy with the outputs of all positions (logits), or of all texts (embeddings).
"""
# pyright: basic, reportMissingImports=false

import ctypes
import json
import sys
from pathlib import Path

import llama_cpp as ll
import numpy as np


def _quantize(job: dict) -> dict:
    options = ll.llama_model_quantize_default_params()
    options.ftype, options.nthread = job["ftype"], job["threads"]
    failed = ll.llama_model_quantize(job["source"].encode(), job["path"].encode(), ctypes.byref(options))
    return {"failed": int(failed)}


def _tokens(vocab: object, text: str) -> list[int]:
    raw = text.encode()
    found = (ll.llama_token * (len(raw) + 8))()
    count = ll.llama_tokenize(vocab, raw, len(raw), found, len(found), True, True)
    return list(found[: max(0, count)])


def _context(model: object, job: dict) -> object:
    options = ll.llama_context_default_params()
    options.n_ctx = options.n_batch = options.n_ubatch = job["length"]
    options.n_threads = options.n_threads_batch = job["threads"]
    options.embeddings = job["embeddings"]
    return ll.llama_init_from_model(model, options)


def _outputs(ctx: object, ids: list[int], width: int, embeddings: bool) -> np.ndarray:
    batch = ll.llama_batch_init(len(ids), 0, 1)
    try:
        batch.n_tokens = len(ids)
        for place, token in enumerate(ids):
            batch.token[place], batch.pos[place], batch.logits[place] = token, place, 1
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
        memory = ll.llama_get_memory(ctx)
        if memory:
            ll.llama_memory_clear(memory, True)
        if ll.llama_decode(ctx, batch):
            raise RuntimeError("llama.cpp did not compute a text")
        if embeddings:
            return np.ctypeslib.as_array(ll.llama_get_embeddings_seq(ctx, 0), shape=(1, width)).copy()
        rows = [np.ctypeslib.as_array(ll.llama_get_logits_ith(ctx, place), shape=(width,)) for place in range(len(ids))]
        return np.stack(rows)
    finally:
        ll.llama_batch_free(batch)


def _read(job: dict, folder: Path) -> dict:
    options = ll.llama_model_default_params()
    options.n_gpu_layers = 0
    model = ll.llama_model_load_from_file(job["path"].encode(), options)
    if not model:
        return {"failed": 1}
    vocab = ll.llama_model_get_vocab(model)
    ctx = _context(model, job)
    if not ctx:
        return {"failed": 2}
    width = job["width"] or ll.llama_vocab_n_tokens(vocab)
    found = [_outputs(ctx, ids, width, job["embeddings"]) for ids in job["ids"]]
    np.save(folder / "outputs.npy", np.concatenate(found).astype(np.float32))
    template = ll.llama_model_chat_template(model, None)
    return {
        "failed": 0,
        "tokens": [_tokens(vocab, text) for text in job["texts"]],
        "template": template.decode() if template else None,
        "version": ll.__version__,
    }


def main() -> None:
    """Do a job."""
    folder = Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    answer = _quantize(job) if job["do"] == "quantize" else _read(job, folder)
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
