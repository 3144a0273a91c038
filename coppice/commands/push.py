"""``coppice push``: a finished bundle to where it is served from."""

from __future__ import annotations

import json as jsonlib
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, assert_never

import typer
from rich.filesize import decimal

from coppice import console
from coppice.client import DEFAULT_URL, Client
from coppice.commands import options
from coppice.commands.which import JOB_ID, Url
from coppice.connection import address_of
from coppice.console import ExitCode, explained, fail, note, progress
from coppice.errors import ApiError, CoppiceError, ServiceUnreachable
from coppice.installation import DISTRIBUTION, require
from coppice.pushing import hub, oci, s3, service
from coppice.pushing.archives import opened
from coppice.pushing.base import Account, Pushed, PushRefused, PushUnreachable
from coppice.pushing.bundle import Bundle, BundleFile, BundleUnfit, NoBundle, few, read_bundle
from coppice.pushing.destinations import FORMS, AnotherService, Bucket, Destination, HubRepository, OciArtifact, parse
from coppice.pushing.rows import data_quoted

_EXTRA = f"{DISTRIBUTION}[push]"


@dataclass(frozen=True, slots=True)
class _Asked:
    """The options of one push, and the keys of the two services that it may speak to."""

    hub: hub.Options
    url: str
    key: str | None
    destination_key: str | None


def push(
    bundle: Annotated[str, typer.Argument(help="Folder of the bundle, an archive of it, or the id of a finished job.")],
    destination: Annotated[str, typer.Argument(help=f"Where to: {FORMS}.")],
    verify_key: Annotated[
        Path | None, typer.Option("--key", help="PEM file of the public key that must have signed the bundle.")
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="A repository of the Hub that is made is seen by all; private by default.")
    ] = False,
    private: Annotated[
        bool, typer.Option("--private", help="Refuse a repository of the Hub that exists and is public.")
    ] = False,
    revision: Annotated[str | None, typer.Option(help="Branch of the Hub's repository; made if there is none.")] = None,
    message: Annotated[str | None, typer.Option(help="Message of the Hub's commit.")] = None,
    with_rows: Annotated[
        bool, typer.Option("--with-rows", help="Send a report that quotes rows of your data, or values of its columns.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Verify, list what would be sent, and send nothing.")] = False,
    url: Url = DEFAULT_URL,
    key: options.ApiKey = None,
    destination_key: Annotated[
        str | None,
        typer.Option(
            envvar="COPPICE_DESTINATION_KEY",
            show_envvar=True,
            help="API key of a service to push to, where the bundle is a job of another one.",
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Push a bundle to the Hub, an object store, a registry or another service: verified first, and not what is there already.

    Example: coppice push ./bundle hf://me/smaller-bert --key coppice.pub
    """
    if public and private:
        fail("--public and --private exclude each other: give one of them", ExitCode.BAD_INPUT)
    with explained():
        to = parse(destination, revision)
        seen = True if public else False if private else None
        asked = _Asked(hub.Options(seen, message), address_of(url), key, destination_key)
    _refuse_misplaced(to, asked)
    _require(to)
    with _told(), _folder(bundle, to, asked) as folder:
        read = _read(folder, verify_key)
        if not with_rows:
            _refuse_rows(read, to)
        if dry_run:
            _show_plan(read, destination, files_for(read, to), _particulars(read, to, asked), json=json)
            return
        account, pushed = _push(read, to, asked)
    _show(read, destination, account, pushed, json=json)


def files_for(bundle: Bundle, to: Destination) -> list[BundleFile]:
    """Return the files that a destination takes of a bundle."""
    return service.part_of(bundle) if isinstance(to, AnotherService) else list(bundle.files)


def _refuse_misplaced(to: Destination, asked: _Asked) -> None:
    if isinstance(to, HubRepository):
        return
    if asked.hub.public is not None:
        fail("--public and --private are for hf:// alone; who sees other places is decided there", ExitCode.BAD_INPUT)
    if asked.hub.message is not None:
        fail("--message is for hf:// alone; other places have no commits", ExitCode.BAD_INPUT)


def _refuse_rows(bundle: Bundle, to: Destination) -> None:
    """Refuse to show the user's data to whoever reads the destination; a service takes no report at all."""
    if isinstance(to, AnotherService):
        return
    quoted = data_quoted(bundle)
    if quoted.rows or quoted.values:
        ways = [("with evaluation.examples 0", quoted.rows), ("without evaluation.slices", quoted.values)]
        fail(
            f"the bundle's report quotes {quoted}, which readers of the destination would see: --with-rows sends them; a "
            f"bundle pruned {' and '.join(way for way, needed in ways if needed)} has none",
            ExitCode.BAD_INPUT,
        )


def _require(to: Destination) -> None:
    match to:
        case HubRepository():
            require("huggingface_hub", _EXTRA)
        case Bucket():
            require("boto3", _EXTRA)
        case OciArtifact():
            require("oras", _EXTRA)
        case AnotherService():
            pass
        case _:
            assert_never(to)


@contextmanager
def _told() -> Generator[None]:
    with explained():
        try:
            yield
        except (NoBundle, PushRefused) as error:
            fail(str(error), ExitCode.BAD_INPUT)
        except PushUnreachable as error:
            fail(str(error), ExitCode.UNREACHABLE)
        except BundleUnfit as error:
            fail(f"nothing was sent: {error}", ExitCode.JOB_FAILED)


@contextmanager
def _folder(bundle: str, to: Destination, asked: _Asked) -> Generator[Path]:
    """Yield the folder of what the user named: a folder, an archive, or a job, whose bundle is fetched."""
    if Path(bundle).exists() or JOB_ID.fullmatch(bundle) is None:
        with opened(Path(bundle)) as folder:
            yield folder
        return
    if isinstance(to, AnotherService) and asked.destination_key is None and to.url != asked.url and asked.key is not None:
        raise PushRefused(f"give --destination-key, the key of {to.url}: the one given is of {asked.url}, where the job is")
    with tempfile.TemporaryDirectory(prefix="coppice-push-") as name:
        try:
            with Client(asked.url, api_key=asked.key) as client, progress("fetch") as show:
                client.download(bundle, Path(name), lambda done, total: show("fetch", done / max(total, 1)))
        except ApiError as error:
            if error.status != 404:
                raise
            raise NoBundle(f"there is no folder or archive {bundle}, and no such job at {asked.url}") from None
        except ServiceUnreachable as error:
            raise NoBundle(f"there is no folder or archive {bundle}, and to ask for a job of that id: {error}") from None
        yield Path(name)


def _read(folder: Path, key: Path | None) -> Bundle:
    if key is not None:
        for module in ("model_signing", "OpenSSL"):
            require(module, f"{DISTRIBUTION}[verify]")
        if not key.is_file():
            fail(f"there is no key {key}", ExitCode.BAD_INPUT)
    try:
        with progress("verify") as show:
            read = read_bundle(folder, key, show)
    except (TypeError, ValueError):
        fail(f"{key} is no public key that signs bundles: it must be PEM, on the curve P-256", ExitCode.BAD_INPUT)
    if read.signed_by is not None and not read.proven:
        note(f"the files are as signed, by key {read.signed_by} as the signature says; --key FILE proves whose it is")
    if read.left_out:
        note(f"not sent, since the manifest does not name them: {few(read.left_out)}")
    return read


def _push(bundle: Bundle, to: Destination, asked: _Asked) -> tuple[Account, Pushed]:
    with progress("push") as show:
        account = Account(bundle, show)
        try:
            return account, _send(bundle, to, asked, account)
        except KeyboardInterrupt:
            console.err.print(_so_far(account, bundle), highlight=False, markup=False, soft_wrap=True)
            raise
        except CoppiceError:
            if account.sent:
                note(_so_far(account, bundle))
            raise


def _send(bundle: Bundle, to: Destination, asked: _Asked, account: Account) -> Pushed:
    match to:
        case HubRepository():
            return hub.push(bundle, to, asked.hub, account)
        case Bucket():
            return s3.push(bundle, to, account)
        case OciArtifact():
            return oci.push(bundle, to, account)
        case AnotherService():
            with Client(to.url, api_key=asked.destination_key or asked.key) as client:
                return service.push(bundle, client, to.url, account)
        case _:
            assert_never(to)


def _so_far(account: Account, bundle: Bundle) -> str:
    there = len(account.sent) + len(account.there)
    return f"interrupted: {there} of {len(bundle.files)} files are there; the same command sends the others"


def _particulars(bundle: Bundle, to: Destination, asked: _Asked) -> dict[str, str]:
    """Say what of a push its list of files does not show: whose signature goes along, and who will see which branch."""
    signature = f"signed by {bundle.signed_by}" if bundle.signed_by is not None else "unsigned"
    found = {"signature": f"{signature}{'' if bundle.signed_by is None or bundle.proven else ', not proven: give --key'}"}
    if isinstance(to, HubRepository):
        who = "private by default" if asked.hub.public is None else "public" if asked.hub.public else "private"
        found |= {"branch": to.revision or "main", "visibility": f"{who}, where this push makes the repository"}
    return found


def _show_plan(bundle: Bundle, destination: str, files: list[BundleFile], particulars: dict[str, str], *, json: bool) -> None:
    if json:
        typer.echo(jsonlib.dumps({"dry_run": True, **_document(bundle, destination, files), **particulars}))
        return
    for file in files:
        typer.echo(f"{decimal(file.size):>12}  {console.plain(file.path)}")
    size = decimal(sum(file.size for file in files))
    typer.echo(
        f"would be sent to {destination}: {len(files)} files, {size}, less what is there already; sha256:{bundle.sha256}"
    )
    for name, value in particulars.items():
        typer.echo(f"{name}: {console.plain(value)}")


def _show(bundle: Bundle, destination: str, account: Account, pushed: Pushed, *, json: bool) -> None:
    for sentence in pushed.notes:
        note(sentence)
    size = sum(file.size for file in account.sent)
    if json:
        document = _document(bundle, destination, [*account.there, *account.sent])
        sent = [file.path for file in account.sent]
        typer.echo(jsonlib.dumps(document | {"url": pushed.url, "version": pushed.version, "sent": sent, "sent_bytes": size}))
        return
    version = f" {pushed.version}" if pushed.version else ""
    there = f", {len(account.there)} there before" if account.there else ""
    typer.echo(f"{pushed.url}{version} sha256:{bundle.sha256} ({len(account.sent)} files sent, {decimal(size)}{there})")


def _document(bundle: Bundle, destination: str, files: list[BundleFile]) -> dict[str, Any]:
    return {
        "destination": destination,
        "sha256": bundle.sha256,
        "signed_by": bundle.signed_by,
        "proven": bundle.proven,
        "files": [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in files],
        "bytes": sum(file.size for file in files),
    }
