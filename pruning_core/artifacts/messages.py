"""Messages between the worker and the fresh process that proves its bundles: what is asked, and what was found.

`fresh` has none of these classes, since it must not import anything of ours: it reads and writes the JSON of them.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from pruning_core.spec.tasks import Reads


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AskedCheckpoint(_Message):
    """One checkpoint, and what of it is to be shown."""

    folder: str
    onnx: str | None
    compressed: str | None
    measure_again: bool
    device_map: dict[str, str] | None


class AskedProbe(_Message):
    """A batch of texts, words or encoded images, and the length in tokens that they are cut to."""

    texts: tuple[tuple[str, ...], ...]
    length: int


class AskedTiming(_Message):
    """Shape, threads and repeats of latency, with its tokens, or the shape of its pixels."""

    batch: int
    length: int
    threads: int
    repeats: int
    tokens: dict[str, list[list[int]]]
    pixels: list[int] | None


class Request(_Message):
    """What the process is told: the checkpoints, how to load and run them, and how to time them."""

    checkpoints: list[AskedCheckpoint]
    dense: str
    auto_class: str
    trust_remote_code: bool
    reads: list[str]
    pooling: str | None
    kind: Reads
    decoder_start: int | None
    device: str
    probes: list[AskedProbe]
    timing: AskedTiming


class _Error(_Message):
    """An error as people are told of it, and the whole chain of what it came of, ``class: message`` each."""

    error: str
    causes: list[str] = []


class Failure(_Error):
    """The error that a user would have met, and the stage at which."""

    stage: str


class FoundLatency(_Message):
    """Milliseconds of every repeat, taken in turns."""

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
    """Names of the tensors that are not the dense layout's bit for bit, of how many; and what its files hold."""

    differing: list[str]
    compared: int
    stored: int
    bytes: int


class FailedCompressed(_Error):
    """Why the compressed form cannot be loaded."""


class Found(_Message):
    """What there is to say of one checkpoint."""

    outputs: list[list[list[float]]]
    parameters: int
    stored: int
    bytes: int
    libraries: dict[str, str]
    onnx: FoundOnnx | FailedOnnx | None = None
    compressed: FoundCompressed | FailedCompressed | None = None
    latency: FoundLatency | None = None


class Result(_Message):
    """What was found of every checkpoint, in the order of the request."""

    found: list[Found | Failure]
