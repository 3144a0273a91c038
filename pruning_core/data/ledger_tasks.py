"""Tasks of lm-eval in a user's own folder: what is read of them, and what is refused. Bounded, torch-free.

A task's YAML may name Python functions, and its data sets and metrics may be fetched and run from the Hub. Here it is data: an
allow-list of keys, files that lie in the folder, and metrics that lm-eval computes itself.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn, cast

from pruning_core.errors import DatasetInvalid
from pruning_core.files.bounded_json import JsonRefused, parse_json
from pruning_core.files.paths import is_local
from pruning_core.spec.ledger import LEDGER

PARAM = f"{LEDGER}.lm_eval"
METRICS = ("acc", "acc_norm")
OUTPUTS = {"multiple_choice": METRICS, "loglikelihood": ("acc",)}
_TEMPLATES = frozenset({"doc_to_text", "doc_to_target", "doc_to_choice", "description", "target_delimiter"})
_READ = _TEMPLATES | {"task", "dataset_path", "dataset_kwargs", "test_split", "validation_split", "output_type", "metric_list"}
# What changes nothing here.
_IGNORED = frozenset({"task_alias", "tag", "metadata", "num_fewshot", "fewshot_delimiter", "training_split", "repeats"})
_CODE = (".py", ".pyc", ".so", ".ipynb", ".sh")
_MOST_ENTRIES = 1000
_MOST_TASKS = 16
_MOST_YAML = 2**16
_MOST_DATA = 8 * 2**20
_MOST_ROWS = 512  # as many items as a ledger may have


@dataclass(frozen=True, slots=True)
class HarnessTask:
    """A task for lm-eval, of which nothing but texts is left.

    Attributes:
        name: Its name.
        config: Keys of lm-eval's configuration, without the data's.
        metric: The metric that is reported, one of `METRICS`.
        docs: The first rows of its data.
    """

    name: str
    config: Mapping[str, Any]
    metric: str
    docs: tuple[dict[str, Any], ...]


def read_tasks(place: str) -> tuple[HarnessTask, ...]:
    """Read all tasks of a folder.

    Raises:
        DatasetInvalid: It has none, or one that names code, something outside of the folder, or what is not read here.
    """
    if not is_local(place):
        _refuse(f"the folder is given by a path that begins with /, ./ or ~; got {place[:64]!r}")
    folder = Path(place).expanduser()
    try:
        if not folder.is_dir():
            _refuse("there is no such folder of tasks")
        entries = list(islice(folder.rglob("*"), _MOST_ENTRIES + 1))
    except OSError:
        _refuse("the folder cannot be read by this machine")
    if len(entries) > _MOST_ENTRIES:
        _refuse(f"the folder has more than {_MOST_ENTRIES} files; name the folder of the tasks alone")
    for entry in sorted(entries):
        if entry.suffix.lower() in _CODE:
            _refuse(f"the folder holds {entry.name}, which is code, and no code of a task is run; take it out")
    files = sorted(entry for entry in entries if entry.suffix.lower() in (".yaml", ".yml"))
    if not files:
        _refuse("the folder holds no task: a YAML file each")
    if len(files) > _MOST_TASKS:
        _refuse(f"the folder holds more than {_MOST_TASKS} tasks; leave those that matter")
    tasks = tuple(_task(folder, file) for file in files)
    names = [task.name for task in tasks]
    if len(set(names)) < len(names):
        _refuse("two tasks have the same name")
    return tasks


def _refuse(message: str) -> NoReturn:
    raise DatasetInvalid(message, param=PARAM)


def _task(folder: Path, file: Path) -> HarnessTask:
    config = _yaml(file)
    for key in sorted(config):
        if key not in _READ | _IGNORED:
            _refuse(f"{file.name} sets {key[:40]}, which is not read here; {', '.join(sorted(_READ))} are")
    if config.get("num_fewshot"):
        _refuse(f"{file.name} sets num_fewshot: examples are not shown to the model here; leave it out or set it to 0")
    name, output = config.get("task"), config.get("output_type")
    if not isinstance(name, str) or not 0 < len(name) <= 64 or not name.isprintable():
        _refuse(f"{file.name} has no name: give task a name of up to 64 letters")
    if not isinstance(output, str) or output not in OUTPUTS:
        _refuse(f"{file.name} has output_type {str(output)[:40]!r}; {' and '.join(OUTPUTS)} are judged here")
    for key in ("doc_to_text", "doc_to_target", *(["doc_to_choice"] if output == "multiple_choice" else [])):
        if key not in config:
            _refuse(f"{file.name} has no {key}")
    for key in _TEMPLATES & set(config):
        _check_template(file, key, config[key])
    docs = _docs(folder, file, config)
    kept = {key: config[key] for key in (*_TEMPLATES, "task", "output_type") if key in config}
    return HarnessTask(name, kept, _metric(file, config, OUTPUTS[output]), docs)


def _check_template(file: Path, key: str, value: object) -> None:
    words = isinstance(value, str) or (key == "doc_to_target" and isinstance(value, int))
    listed = key == "doc_to_choice" and isinstance(value, list) and all(isinstance(own, str) for own in cast("Any", value))
    if not words and not listed:
        _refuse(f"{file.name}: {key} must be a text or a template{', or a list of texts' if key == 'doc_to_choice' else ''}")


def _metric(file: Path, config: Mapping[str, Any], known: tuple[str, ...]) -> str:
    listed = config.get("metric_list")
    if listed is None:
        return known[0]
    names: list[object] = []
    for own in cast("list[object]", listed) if isinstance(listed, list) else [listed]:
        names.append(cast("Mapping[str, object]", own).get("metric") if isinstance(own, Mapping) else own)
        if isinstance(own, Mapping) and cast("Mapping[str, object]", own).get("hf_evaluate"):
            _refuse(f"{file.name} sets hf_evaluate, which runs code of the Hub; take {' or '.join(known)}")
    if not names or not all(name in known for name in names):
        _refuse(f"{file.name} has metrics that are not computed here; take {' or '.join(known)}")
    return cast("str", names[-1] if "acc_norm" not in names else "acc_norm")


def _yaml(file: Path) -> dict[str, Any]:
    """Read YAML without code, without references, and of bounded size."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.events.AliasEvent):
                _refuse(f"{file.name} has references (*name), which are not read here; write out what they stand for")
            return super().compose_node(parent, index)

    def code(_loader: object, tag: str, node: Any) -> NoReturn:
        said = f"!{tag} {getattr(node, 'value', '')}"[:80]
        _refuse(f"{file.name} names code ({said}), and no code of a task is run; write a template in its place")

    Loader.add_multi_constructor("!", code)
    Loader.add_multi_constructor("tag:yaml.org,2002:python/", code)
    try:
        with file.open("rb") as opened:
            data = opened.read(_MOST_YAML + 1)
        if len(data) > _MOST_YAML:
            _refuse(f"{file.name} has more than {_MOST_YAML} bytes, which no task needs")
        found: object = yaml.load(data, Loader=Loader)  # noqa: S506 - a SafeLoader, narrowed
    except OSError:
        _refuse(f"{file.name} cannot be read by this machine")
    except (yaml.YAMLError, RecursionError, ValueError):
        _refuse(f"{file.name} is not readable YAML")
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in cast("dict[object, object]", found)):
        _refuse(f"{file.name} must hold one task: keys and values")
    return cast("dict[str, Any]", found)


def _docs(folder: Path, file: Path, config: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    kind = config.get("dataset_path")
    if kind not in ("json", "csv"):
        _refuse(
            f"{file.name} has dataset_path {str(kind)[:40]!r}: nothing is fetched from the Hub; give json or csv, and name a "
            "file of the folder in dataset_kwargs.data_files"
        )
    options = config.get("dataset_kwargs")
    if not isinstance(options, dict) or set(cast("dict[str, object]", options)) != {"data_files"}:
        _refuse(f"{file.name}: dataset_kwargs must have data_files, and nothing else")
    files, split = options["data_files"], config.get("test_split") or config.get("validation_split")
    if isinstance(files, dict):
        files = cast("dict[object, object]", files).get(split)
    if isinstance(files, list) and len(cast("list[object]", files)) == 1:
        files = files[0]
    if not isinstance(files, str):
        _refuse(f"{file.name}: data_files must name one file for the split that test_split or validation_split names")
    path = folder / PurePosixPath(files)
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError):
        inside = False
    if PurePosixPath(files).is_absolute() or ".." in PurePosixPath(files).parts or not inside:
        _refuse(f"{file.name} names data outside of its folder; put it beside the task")
    return _rows(path, kind)


def _rows(path: Path, kind: str) -> tuple[dict[str, Any], ...]:
    try:
        with path.open("rb") as opened:
            data = opened.read(_MOST_DATA + 1)
    except OSError:
        _refuse(f"the data file {path.name[:64]} is missing, or cannot be read by this machine")
    if len(data) > _MOST_DATA:
        _refuse(f"{path.name[:64]} has more than {_MOST_DATA} bytes; the ledger reads {_MOST_ROWS} rows at most, give fewer")
    try:
        text = data.decode("utf-8")
        if kind == "csv":
            found: list[object] = list(islice(csv.DictReader(io.StringIO(text)), _MOST_ROWS))
        elif text.lstrip().startswith("["):
            found = list(islice(cast("list[object]", parse_json(data)), _MOST_ROWS))
        else:
            lines = (line for line in text.splitlines() if line.strip())
            found = [parse_json(line.encode()) for line in islice(lines, _MOST_ROWS)]
    except UnicodeDecodeError:
        _refuse(f"{path.name[:64]} is not written in UTF-8")
    except (JsonRefused, csv.Error) as error:
        _refuse(f"{path.name[:64]} {error if isinstance(error, JsonRefused) else 'is not readable CSV'}")
    if not found:
        _refuse(f"{path.name[:64]} has no row")
    if not all(isinstance(row, dict) and None not in row for row in found):
        _refuse(f"{path.name[:64]} must have one object with named values in each row")
    return tuple(cast("list[dict[str, Any]]", found))
