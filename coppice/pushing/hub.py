"""Pushing to the Hub, by huggingface_hub: all files in one commit, so that the repository never holds half a bundle."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.pushing.base import Account, Pushed, PushRefused, PushUnreachable
from coppice.pushing.bundle import Bundle, BundleFile, few, git_oid
from coppice.pushing.destinations import HubRepository

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi, ModelInfo

_OF_THE_HUB = frozenset({".gitattributes"})
_ALONE = 10 * 2**20  # larger ones go one by one, so that progress is seen; the Hub keeps all of these outside of git


@dataclass(frozen=True, slots=True)
class Options:
    """What is for the Hub alone.

    Attributes:
        public: Whether a repository that is made is to be seen by all, and one that exists is; None: new ones are private.
        message: The commit's; None: one that names the digest.
    """

    public: bool | None = None
    message: str | None = None


def push(bundle: Bundle, to: HubRepository, options: Options, account: Account) -> Pushed:
    """Commit the files of a bundle that are not there yet. The repository and the branch are made where they are not there.

    Raises:
        PushRefused: There is no token, or none that may write there; or the repository is seen by others than was asked.
        PushUnreachable: Nothing answers, or the Hub is out of order.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.utils import disable_progress_bars

    api = HfApi(library_name="coppice")
    if get_token() is None:
        raise PushRefused(f"the Hub wants a token, and none was given: export HF_TOKEN=hf_..., {_where(api)}")
    disable_progress_bars()
    with _translated(api, to), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the model card's metadata; what is wrong with it is an error
        found = _repository(api, to, options)
        names = _there(found)
        for file in bundle.files:
            if _same(file, names.get(file.path)):
                account.skip(file)
        missing = [file for file in bundle.files if file not in account.there]
        message = options.message or f"Push a bundle of Coppice, manifest sha256 {bundle.sha256[:12]}"
        commit = _commit(api, to, missing, message, account) if missing else found.sha
        # Not before the commit: until then, nothing of what was sent is in the repository.
        for file in missing:
            account.finish(file)
    others = sorted(names.keys() - {file.path for file in bundle.files} - _OF_THE_HUB)
    notes = (f"{to.name} holds other files, too, which are not of this bundle: {few(others)}",) if others else ()
    where = f"/tree/{to.revision}" if to.revision else ""
    return Pushed(f"{api.endpoint}/{to.name}{where}", commit, notes)


def _repository(api: HfApi, to: HubRepository, options: Options) -> ModelInfo:
    """Return what the Hub holds of the repository's branch, and make both where they are not there."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        found = api.model_info(to.name)
    except RepositoryNotFoundError as error:
        if error.response.status_code == 401:
            raise
        api.create_repo(to.name, private=not options.public, exist_ok=True)
        found = api.model_info(to.name)
    else:
        _refuse_otherwise_seen(found, to, options)
    try:
        return api.model_info(to.name, revision=to.revision, files_metadata=True)
    except RevisionNotFoundError:
        assert to.revision is not None
        api.create_branch(to.name, branch=to.revision, exist_ok=True)
        return api.model_info(to.name, revision=to.revision, files_metadata=True)


def _refuse_otherwise_seen(found: ModelInfo, to: HubRepository, options: Options) -> None:
    if options.public is None or found.private is None or options.public != found.private:
        return
    now, wanted = ("private", "public") if found.private else ("public", "private")
    raise PushRefused(
        f"{to.name} exists and is {now}, and --{wanted} was asked; change that in its settings, or leave --{wanted} out"
    )


# What the Hub says of a file: its sha256 where it is kept outside of git, else git's name of its content.
_Known = tuple[int | None, str | None, str | None]


def _there(found: ModelInfo) -> dict[str, _Known]:
    return {one.rfilename: (one.size, None if one.lfs is None else one.lfs.sha256, one.blob_id) for one in found.siblings or ()}


def _same(file: BundleFile, known: _Known | None) -> bool:
    if known is None:
        return False
    size, sha256, oid = known
    if sha256 is not None:
        return sha256 == file.sha256
    return size == file.size and oid == git_oid(file)


def _commit(api: HfApi, to: HubRepository, files: list[BundleFile], message: str, account: Account) -> str:
    from huggingface_hub import CommitOperationAdd

    operations: list[CommitOperationAdd] = []
    for file in files:
        operation = CommitOperationAdd(path_in_repo=file.path, path_or_fileobj=str(file.source))
        # The digest that was verified: content that was changed since does not fit, and the Hub refuses it.
        operation.upload_info.sha256 = bytes.fromhex(file.sha256)
        operations.append(operation)
        account.begin(file)
        if file.size > _ALONE:
            api.preupload_lfs_files(to.name, additions=[operation], revision=to.revision, free_memory=False)
        account.add(file.size)
    return api.create_commit(to.name, operations, commit_message=message, revision=to.revision).oid


@contextmanager
def _translated(api: HfApi, to: HubRepository) -> Generator[None]:
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        yield
    except HFValidationError as error:
        raise PushRefused(f"{to.name!a} is no name of a repository: {error}") from None
    except OfflineModeIsEnabled:
        raise PushRefused("the Hub is not asked while HF_HUB_OFFLINE is set; unset it to push") from None
    except HfHubHTTPError as error:
        raise _refusal(error, api, to) from None
    except httpx2.TransportError as error:
        raise _unreachable(api, error) from None
    except (RuntimeError, ValueError) as error:  # how the library wraps what went wrong with a large file, or with the card
        cause = error.__cause__
        match cause:
            case HfHubHTTPError():
                raise _refusal(cause, api, to) from None
            case httpx2.TransportError():
                raise _unreachable(api, cause) from None
            case _:
                said = " ".join(str(error).split())[:300]
                raise PushRefused(f"the Hub did not take the bundle: {said}") from None


def _refusal(error: object, api: HfApi, to: HubRepository) -> PushRefused | PushUnreachable:
    status = getattr(getattr(error, "response", None), "status_code", 0)
    match status:
        case 401:
            return PushRefused(f"the Hub does not take the token of HF_TOKEN, or of hf auth login; renew it, {_where(api)}")
        case 403 | 404:
            owner = to.name.partition("/")[0]
            return PushRefused(
                f"the token may not write to {to.name}: it needs write access to {owner}'s repositories, {_where(api)}; is "
                f"{owner} your name there, or an organization of yours?"
            )
        case 412 | 409:
            return PushRefused(f"{to.name} was changed by others meanwhile; push again")
        case 429:
            return PushRefused("the Hub asks to wait: too many requests; push again in some minutes")
        case _ if status >= 500:
            return PushUnreachable(f"the Hub at {api.endpoint} is out of order ({status}); push again later")
        case _:
            said = " ".join(str(getattr(error, "server_message", "") or "").split())[:300]
            return PushRefused(f"the Hub refused ({status}){f': {said}' if said else ''}")


def _unreachable(api: HfApi, error: Exception) -> PushUnreachable:
    return PushUnreachable(f"no answer from the Hub at {api.endpoint} ({type(error).__name__}); HF_ENDPOINT names another")


def _where(api: HfApi) -> str:
    return f"a token with write access is made at {api.endpoint}/settings/tokens"
