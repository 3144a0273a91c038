"""What ran out of memory or disk is told as such, whoever raised it and whoever caught it: never final, nobody's fault."""

from __future__ import annotations

import errno
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pruning_core.arch.adapter import adapt
from pruning_core.arch.verify import verify
from pruning_core.artifacts import onnx
from pruning_core.artifacts.acceptance import Expectation, Prover
from pruning_core.artifacts.messages import FailedCompressed, FailedOnnx, Failure, Found
from pruning_core.data import opening
from pruning_core.data.read import read_rows
from pruning_core.errors import ModelUnreadable, OutOfMemory, PruningError, StorageFull
from pruning_core.files.hub import model_folder
from pruning_core.machine.resources import disk_is_full, memory_is_full, raise_if_exhausted, told_of
from pruning_core.measure.sparse_products import measure_products
from pruning_core.models import load
from pruning_core.models.load import load_task_model
from pruning_core.report.report import LatencyReport
from pruning_core.run import pipeline, preparation
from pruning_core.spec.prune import LatencySpec
from tests import tiny

# What libraries raise, in their own words.
ALLOCATOR = "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 4"
CUDA = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.00 GiB is free."


class SafetensorError(Exception):
    """As safetensors names it; it is no OSError."""


class OperationalError(Exception):
    """As databases' drivers name it."""

    def __init__(self, text: str, sqlstate: str | None = None) -> None:
        super().__init__(text)
        self.sqlstate = sqlstate


def _arrow():
    pa = pytest.importorskip("pyarrow")
    return pa.lib.ArrowMemoryError("malloc of size 64 failed")


MEMORY = {
    "python": MemoryError,
    "arrow": _arrow,
    "torch's class": lambda: torch.OutOfMemoryError(CUDA),
    "torch's text": lambda: RuntimeError(CUDA),
    "torch on a CPU": lambda: RuntimeError(ALLOCATOR),
    "a device": lambda: RuntimeError("CUDA error: out of memory"),
    "cublas": lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "onnxruntime": lambda: RuntimeError("Failed to allocate memory for requested buffer of size 4096"),
    "c++": lambda: RuntimeError("std::bad_alloc"),
    "mmap": lambda: OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    "ours": lambda: OutOfMemory("it did not fit"),
}
DISK = {
    "no space": lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "quota": lambda: OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
    "file size": lambda: OSError(errno.EFBIG, os.strerror(errno.EFBIG)),
    "safetensors": lambda: SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    "arrow": lambda: OSError("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device"),
    "sqlite": lambda: OperationalError("database or disk is full"),
    "postgres": lambda: OperationalError("could not extend file", "53100"),
    "ours": lambda: StorageFull("no room"),
}
OTHERS = [
    ValueError("the data set may not be about memory"),
    OSError(errno.ENOENT, os.strerror(errno.ENOENT)),
    RuntimeError("size mismatch for bert.encoder: copying a param with shape [2] from checkpoint"),
    PruningError("keep 'No space left on device' out of column names; std::bad_alloc too"),
    OperationalError("deadlock detected", "40P01"),
]


@pytest.mark.parametrize("kind", MEMORY)
def test_memory_is_told(kind):
    error = MEMORY[kind]()
    assert memory_is_full(error)
    assert not disk_is_full(error)


@pytest.mark.parametrize("kind", DISK)
def test_disk_is_told(kind):
    error = DISK[kind]()
    assert disk_is_full(error)
    assert not memory_is_full(error)


@pytest.mark.parametrize("error", OTHERS, ids=repr)
def test_other_errors_are_neither(error):
    assert not disk_is_full(error)
    assert not memory_is_full(error)
    raise_if_exhausted(error, "it was tried")


def _raised(make):
    try:
        make()
    except Exception as error:
        return error
    raise AssertionError


def _from(error):
    def make():
        raise ModelUnreadable("it cannot be read") from error

    return make


def _while_handling(error):
    def make():
        try:
            raise error
        except Exception:
            raise ValueError("and then this")  # noqa: B904 - the chain that is meant

    return make


def _in_a_group(error):
    def make():
        raise ExceptionGroup("several", [KeyError("one"), error])

    return make


@pytest.mark.parametrize("wrapped", [_from, _while_handling, _in_a_group])
def test_causes_and_groups_are_walked(wrapped):
    assert memory_is_full(_raised(wrapped(MemoryError())))
    assert disk_is_full(_raised(wrapped(OSError(errno.ENOSPC, "full"))))


def test_a_context_that_was_put_aside_is_not_walked():
    def make():
        try:
            raise MemoryError
        except MemoryError:
            raise ValueError("it is something else") from None

    assert not memory_is_full(_raised(make))


def test_a_circle_of_causes_ends():
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert not memory_is_full(one)


def test_ours_keep_their_own_words():
    with pytest.raises(OutOfMemory, match="it did not fit"):
        raise_if_exhausted(OutOfMemory("it did not fit", param="memory.weights"), "it was tried")
    with pytest.raises(StorageFull, match="while it was tried"):
        raise_if_exhausted(OSError(errno.ENOSPC, "full"), "it was tried")


def test_what_another_process_wrote_of_its_errors_is_told():
    assert told_of(["ValueError: it cannot be read", f"RuntimeError: {ALLOCATOR}"]) is OutOfMemory
    assert told_of(["OutOfMemoryError: "]) is OutOfMemory
    assert told_of(["MemoryError: "]) is OutOfMemory
    assert told_of(["SafetensorError: I/O error: No space left on device (os error 28)"]) is StorageFull
    assert told_of(["ValueError: the MemoryError class is quoted here"]) is None


def test_the_classifier_needs_no_torch():
    code = "import sys, pruning_core.machine.resources; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# The places of the core that turn errors of other libraries into errors about what was asked for.

EXHAUSTED = [
    (RuntimeError(ALLOCATOR), OutOfMemory),
    (torch.OutOfMemoryError(CUDA), OutOfMemory),
    (OSError(errno.ENOSPC, "No space left on device"), StorageFull),
]


def _raising(error):
    def stand_in(*_args, **_options):
        raise error

    return stand_in


@pytest.mark.parametrize(("error", "expected"), EXHAUSTED)
def test_loading_a_model(error, expected, tiny_bert, monkeypatch):
    import transformers

    for auto in (transformers.AutoModelForSequenceClassification, transformers.AutoTokenizer):
        with monkeypatch.context() as patch:
            patch.setattr(auto, "from_pretrained", _raising(error))
            with pytest.raises(expected):
                load_task_model(tiny_bert, "text-classification", torch.device("cpu"))


def test_loading_a_paged_model(tiny_bert, tmp_path, monkeypatch):
    monkeypatch.setattr(load, "load_paged", _raising(MemoryError()))
    with pytest.raises(OutOfMemory):
        load_task_model(tiny_bert, "text-classification", torch.device("cpu"), pages=tmp_path)


@pytest.mark.parametrize(("error", "expected"), EXHAUSTED)
def test_fetching_a_model(error, expected, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", _raising(error))
    with pytest.raises(expected):
        model_folder("org/name", None)


@pytest.mark.parametrize(("error", "expected"), EXHAUSTED)
def test_reading_data(error, expected, tiny_bert, tiny_sst2, tmp_path, monkeypatch):
    import datasets
    import pyarrow.parquet

    monkeypatch.setattr(pyarrow.parquet, "ParquetFile", _raising(error if isinstance(error, OSError) else _arrow()))
    with pytest.raises(expected):
        read_rows(tiny.tiny_spec(tiny_bert, tiny_sst2).task, "train")
    monkeypatch.setattr(opening, "dataset_folder", lambda *_, **__: tmp_path)  # which datasets alone may know how to read
    monkeypatch.setattr(datasets, "load_dataset", _raising(error))
    hub = tiny.tiny_spec(tiny_bert, tiny_sst2).task.model_copy(update={"dataset": "org/name"})
    with pytest.raises(expected):
        read_rows(hub, "train")


@pytest.mark.parametrize(("error", "expected"), EXHAUSTED[:2])
def test_trying_the_blocks(error, expected, monkeypatch):
    adapter = adapt(tiny.build_model("bert"))
    monkeypatch.setattr(type(adapter.sublayers[0]), "features", _raising(error))
    inputs = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    with pytest.raises(expected):
        verify(adapter, inputs)


@pytest.mark.parametrize(("error", "expected"), EXHAUSTED)
def test_exporting_a_graph(error, expected, tiny_bert, tmp_path, monkeypatch):
    model = load_task_model(tiny_bert, "text-classification", torch.device("cpu"))
    monkeypatch.setattr(torch.onnx, "export", _raising(error))
    with pytest.raises(expected):
        onnx.export_onnx(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_timing_sparse_products(monkeypatch):
    model = tiny.build_model("bert")
    with torch.no_grad():
        for linear in adapt(model).linears.values():
            linear.weight[::2] = 0

    def product(inputs, weight, bias):
        if weight.layout is not torch.strided:
            raise RuntimeError(ALLOCATOR)
        return torch.nn.functional.linear(inputs, weight, bias)

    monkeypatch.setattr("pruning_core.measure.sparse_products.product", product)
    shape = LatencyReport(
        dense=1, pruned=1, speedup=1, dense_iqr=0, pruned_iqr=0, batch=1, length=4, repeats=1, threads=1, device="cpu"
    )
    with pytest.raises(OutOfMemory, match="sparse products were timed"):
        measure_products(model, shape, "float32", torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("causes", "expected"), [(["MemoryError: "], OutOfMemory), (["OSError: [Errno 28] No space left on device"], StorageFull)]
)
@pytest.mark.parametrize("part", ["checkpoint", "onnx", "compressed"])
def test_a_proof_that_runs_out_is_no_verdict(part, causes, expected, tiny_bert):
    dense = load_task_model(tiny_bert, "text-classification", torch.device("cpu"))
    prover = Prover(dense, (), LatencySpec(batch=1, length=8, repeats=3), trust_remote_code=False, seed=0)
    claim = Expectation(Path(), (), 1, 1, onnx=True, measure_again=False, compressed={"bits": 1})
    whole = {"outputs": [], "parameters": 1, "stored": 1, "bytes": 1, "libraries": {}}
    found = {
        "checkpoint": Failure(error="ValueError: it cannot be read", causes=causes, stage="transformers"),
        "onnx": Found(**whole, onnx=FailedOnnx(error="RuntimeError: no", causes=causes)),
        "compressed": Found(**whole, compressed=FailedCompressed(error="ValueError: no", causes=causes)),
    }
    with pytest.raises(expected, match="the process that proves the bundle ran out of"):
        prover.judge(claim, found[part])


@pytest.mark.parametrize(
    "error",
    [RuntimeError(ALLOCATOR), torch.OutOfMemoryError(CUDA), _raised(_from(MemoryError()))],
    ids=["cpu", "gpu", "caused"],
)
def test_a_run_that_runs_out_of_memory_may_be_tried_again(error, tiny_bert, tiny_sst2, tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "read_splits", _raising(error))
    with pytest.raises(OutOfMemory, match=r"out of memory on cpu; lower calibration\.memory_mb"):
        pipeline.run(tiny.tiny_spec(tiny_bert, tiny_sst2), tmp_path / "out", device="cpu")
    assert list(tmp_path.iterdir()) == []


def test_a_helper_of_a_training_that_runs_out_says_so_by_its_exit_code():
    from pruning_core.training.together import NO_MEMORY, help_train

    context = multiprocessing.get_context("fork")
    helper = context.Process(target=help_train, args=(b"", 1, "", (), 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pruning_core.training.together.take_part", _raising(RuntimeError(ALLOCATOR)))
        helper.start()
    helper.join(60)
    assert helper.exitcode == NO_MEMORY
