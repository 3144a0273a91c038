"""``coppice verify``: whose a bundle is, and whether it is as it was signed."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from coppice import console
from coppice.commands import options
from coppice.console import ExitCode, fail
from coppice.installation import DISTRIBUTION, require
from coppice.origin import Origin, OriginUnproven
from coppice.origin import verify as verified
from pruning_core.files.provenance import PROVENANCE_FILE, Resource

_NO_KEY = (
    "give --key FILE, the public key that you trust. Have the service's operator hand it to you, or confirm its id, by another "
    "way than the bundle came: GET /v1/signing-key of the same server proves little, for who could forge the bundle there "
    "could forge that answer, too"
)


_MOMENT = "%Y-%m-%d %H:%M:%S %Z"


def verify(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle, as it was downloaded.")],
    key: Annotated[
        Path | None, typer.Option(help="PEM file of the public key that you trust, got from the service's operator.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Verify a bundle: that the owner of the key has signed it, and that every file is as it was signed. No service is asked.

    Exit codes: 0 verified, 1 not signed, not by this key, or changed since, 2 there is no such bundle or key.

    Example: coppice verify ./bundle --key coppice.pub
    """
    if key is None:
        fail(_NO_KEY, ExitCode.BAD_INPUT)
    if not bundle.is_dir():
        fail(f"there is no folder {bundle}", ExitCode.BAD_INPUT)
    for module in ("model_signing", "OpenSSL"):
        require(module, f"{DISTRIBUTION}[verify]")
    try:
        origin = verified(bundle, key)
    except OriginUnproven as error:
        fail(f"{bundle}: {error}", ExitCode.JOB_FAILED)
    except (TypeError, ValueError):
        fail(f"{key} is no public key that signs bundles: it must be PEM, on the curve P-256", ExitCode.BAD_INPUT)
    except OSError as error:
        fail(f"{error.filename or bundle} cannot be read ({error.strerror})", ExitCode.BAD_INPUT)
    if json:
        typer.echo(jsonlib.dumps(_document(origin)))
    else:
        _show(bundle, origin)


def _document(origin: Origin) -> dict[str, Any]:
    statement = origin.statement
    return {
        "verified": True,
        "key_id": origin.key_id,
        "files": origin.files,
        "provenance": None if statement is None else statement.model_dump(mode="json", by_alias=True, exclude_none=True),
    }


def _show(bundle: Path, origin: Origin) -> None:
    table = Table(title=f"{bundle.name}: verified", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, told in _lines(origin):
        # What users wrote into a spec is shown, not obeyed by the terminal.
        table.add_row(name, Text("".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in told)))
    console.show_table(table)


def _lines(origin: Origin) -> list[tuple[str, str]]:
    lines = [("signed by", f"key {origin.key_id}"), ("files", f"{len(origin.files)}, each as it was signed, and no other")]
    if origin.statement is None:
        return [*lines, ("provenance", f"none: there is no {PROVENANCE_FILE} among them")]
    definition, run = origin.statement.predicate.build_definition, origin.statement.predicate.run_details
    spec = definition.external_parameters.spec
    targets = spec.get("targets") or [spec.get("target")]
    return [
        *lines,
        (
            "job",
            f"{run.metadata.invocation_id}, {run.metadata.started_on:{_MOMENT}} to {run.metadata.finished_on:{_MOMENT}}",
        ),
        ("model", str(spec.get("model"))),
        ("data", str(_of(spec.get("task"), "dataset"))),
        ("method", str(_of(spec.get("method"), "name"))),
        ("targets", jsonlib.dumps(targets)),
        *((f"source {source.name or ''}", _digest(source)) for source in definition.resolved_dependencies),
        ("versions", ", ".join(f"{name} {version}" for name, version in run.builder.version.items())),
    ]


def _of(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else value


def _digest(source: Resource) -> str:
    digests = ", ".join(f"{name} {value}" for name, value in (source.digest or {}).items())
    why = (source.annotations or {}).get("digests", "")
    return " ".join(part for part in (source.uri or "", digests, why) if part)
