"""Messages between the worker and the fresh process that proves its bundles: the request, and the findings.

`fresh` reads and writes their JSON without these classes, since it must not import anything of Coppice.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from pruning_core.spec.tasks import Reads


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AskedCheckpoint(_Message):
    """A checkpoint, and the checks that are asked for."""

    folder: str
    onnx: str | None
    compressed: str | None
    measure_again: bool
    device_map: dict[str, str] | None


class AskedProbe(_Message):
    """A batch of texts, words or encoded images, and the length in tokens that they are cut to."""

    texts: tuple[tuple[str, ...], ...]
    length: int


class AskedSentences(_Message):
    """Embeddings by sentence-transformers, and whether they are compared in unit length."""

    unit: bool


class AskedTiming(_Message):
    """Shape, threads and repeats of the latency measurement, and its token inputs or the shape of its pixels."""

    batch: int
    length: int
    threads: int
    repeats: int
    tokens: dict[str, list[list[int]]]
    pixels: list[int] | None


class Request(_Message):
    """The request to the process: the checkpoints, and how to load, run and time them."""

    checkpoints: list[AskedCheckpoint]
    dense: str
    auto_class: str
    trust_remote_code: bool
    reads: list[str]
    sentences: AskedSentences | None
    fact_texts: list[str]
    kind: Reads
    decoder_start: int | None
    device: str
    probes: list[AskedProbe]
    timing: AskedTiming


class _Error(_Message):
    """An error in a line for people, and the chain of it and its causes, each as ``class: message``."""

    error: str
    causes: list[str] = []


class Failure(_Error):
    """The error that a user would have met, and the stage at which it came up."""

    stage: str


class FoundLatency(_Message):
    """Milliseconds of every repeat; both models were measured in alternation."""

    dense: list[float]
    pruned: list[float]
    threads: int


class FoundOnnx(_Message):
    """Outputs of the exported graph, and milliseconds of every repeat."""

    outputs: list[list[list[float]]]
    milliseconds: list[float]
    version: str


class FailedOnnx(_Error):
    """Why the exported graph cannot be run."""


class FoundCompressed(_Message):
    """Names of tensors that differ from the dense layout's, number of compared tensors, and values and bytes of the files."""

    differing: list[str]
    compared: int
    stored: int
    bytes: int


class FailedCompressed(_Error):
    """Why the compressed form cannot be loaded."""


class Found(_Message):
    """The findings on one checkpoint that could be loaded.

    ``encoded`` is what sentence-transformers' `encode` gives; ``facts`` is what `fresh.facts` says of the checkpoint.
    """

    outputs: list[list[list[float]]]
    parameters: int
    stored: int
    bytes: int
    libraries: dict[str, str]
    encoded: list[list[list[float]]] | None = None
    facts: dict[str, Any] = {}
    onnx: FoundOnnx | FailedOnnx | None = None
    compressed: FoundCompressed | FailedCompressed | None = None
    latency: FoundLatency | None = None


class Result(_Message):
    """The findings on all checkpoints, in the order of the request."""

    found: list[Found | Failure]
