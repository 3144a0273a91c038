"""Pushing to a Coppice service: the model of a bundle as an upload there, which jobs name by its id."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path, PurePosixPath

from coppice.client import Client
from coppice.pushing.base import Account, Pushed, PushRefused
from coppice.pushing.bundle import MANIFEST_FILE, Bundle, BundleFile, few
from pruning_core.files.provenance import PROVENANCE_FILE

# What services take of a model, and the folders of a bundle that hold it once more, in forms that are no model to prune.
_TAKEN = (".safetensors", ".json", ".txt", ".model", ".spm", ".md", ".jinja")
_OF_THE_BUNDLE = frozenset({MANIFEST_FILE, PROVENANCE_FILE, "report.json"})  # about files that do not go along
_OTHER_FORMS = frozenset({"onnx", "openvino", "gguf", "compressed-tensors", "engines"})


def push(bundle: Bundle, client: Client, url: str, account: Account) -> Pushed:
    """Upload the model, unless the service has it.

    Raises:
        PushRefused: There is no single model in the bundle.
        CoppiceError: The service refuses it, or does not answer.
    """
    files = part_of(bundle)
    upload_id = _id(files)
    left_out = sorted({file.path for file in bundle.files} - {file.path for file in files})
    notes = (f"an upload holds the model alone; left out: {few(left_out)}",) if left_out else ()
    found = client.uploaded_model(upload_id)
    if found is not None:
        for file in files:
            account.skip(file)
        return Pushed(f"{url}/v1/models/{found.id}", found.id, notes)
    for file in files:
        account.begin(file)
    with tempfile.TemporaryDirectory(prefix="coppice-push-") as name:
        for file in files:
            link = Path(name).joinpath(*PurePosixPath(file.path).parts)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.source.resolve())
        upload = client.upload_model(Path(name))
    for file in files:
        account.finish(file)
    return Pushed(f"{url}/v1/models/{upload.id}", upload.id, notes)


def part_of(bundle: Bundle) -> list[BundleFile]:
    """Return the files of a bundle that make an upload of a model.

    Raises:
        PushRefused: It has several models, or none, at its root.
    """
    if not any(file.path == "config.json" for file in bundle.files):
        raise PushRefused(
            "a service takes one model, and this bundle has no config.json at its root; push a folder of its frontier"
        )
    return [
        file
        for file in bundle.files
        if PurePosixPath(file.path).suffix.lower() in _TAKEN
        and file.path not in _OF_THE_BUNDLE
        and file.path.partition("/")[0] not in _OTHER_FORMS
    ]


def _id(files: list[BundleFile]) -> str:
    """Return the id that the service gives this content (docs/guides/origin.md)."""
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.path):
        digest.update(f"{file.path}\0{file.size}\0{file.sha256}\n".encode())
    return f"mdl_{digest.hexdigest()}"
