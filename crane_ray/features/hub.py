"""Weight files from the Hugging Face hub: fetched once, known by their commit, offline from cache.

Runs in the driver, whose environment (``HF_TOKEN``, ``HF_HOME``, ``HF_HUB_OFFLINE``) is the
user's own. The library is imported where it is needed; it is part of the extra ``encoders``.
"""

import re
from pathlib import Path
from typing import Any

from crane_ray.errors import ConfigError
from crane_ray.features.encoder import HubWeights

COMMIT = re.compile(r"^[0-9a-f]{40}$")


def fetch_file(name: str, where: HubWeights, files: tuple[str, ...]) -> tuple[str, str]:
    """A file of a repository in the local cache, fetched if it is not there yet.

    Args:
        name: of the encoder, for messages.
        where: the repository and its revision.
        files: names of the file, the first that is there wins.

    Returns:
        its local path, and ``ORG/NAME@COMMIT/FILE``.

    Raises:
        ConfigError: huggingface_hub is not installed, access was not granted, there is no such
            repository, revision or file, or the hub cannot be reached and the cache lacks it.
    """
    try:
        from huggingface_hub import errors, hf_hub_download
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"encoder {name}: fetching {where.repo} needs the package huggingface_hub; "
            "pip install 'crane-ray[encoders]', or give the file with --weights FILE"
        ) from error
    last: Exception | None = None
    for file in files:
        try:
            path = str(hf_hub_download(where.repo, file, revision=where.revision))
        except (errors.EntryNotFoundError, errors.OfflineModeIsEnabled) as error:
            last = error
        except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
            raise ConfigError(_why(name, where, file, error)) from error
        else:
            return path, f"{where.repo}@{_commit(path, where)}/{file}"
    assert last is not None
    raise ConfigError(_why(name, where, " or ".join(files), last)) from last


def cached_file(where: HubWeights) -> str | None:
    """The path of a file that is in the local cache already; nothing is fetched."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ModuleNotFoundError:
        return None
    for file in where.files:
        path = try_to_load_from_cache(where.repo, file, revision=where.revision)
        if isinstance(path, str):
            return path
    return None


def is_logged_in() -> bool:
    """Whether gated files can be asked for in somebody's name (``hf auth login``, HF_TOKEN)."""
    try:
        from huggingface_hub import get_token
    except ModuleNotFoundError:
        return False
    return get_token() is not None


def _commit(path: str, where: HubWeights) -> str:
    """The commit that a cached file is of: the cache's folders are named so."""
    found = [part for part in Path(path).parts if COMMIT.match(part)]
    return found[-1] if found else where.revision or "main"


def _why(name: str, where: HubWeights, file: str, error: Exception) -> str:
    from huggingface_hub import errors

    what = f"encoder {name}: {file} of {where.repo}"
    if where.revision:
        what += f" at {where.revision[:12]}"
    by_hand = "give it with --weights FILE"
    log_in = "log in on this machine (hf auth login, or the environment variable HF_TOKEN)"
    if isinstance(error, errors.GatedRepoError) or (where.gated and _refused(error)):
        return (
            f"{what}: access is granted by its authors; ask for it at {where.page}, then {log_in} "
            f"and run the same command again; or {by_hand}"
        )
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return (
            f"{what}: the hub cannot be reached (or HF_HUB_OFFLINE is set), and the file is not "
            f"in the local cache; fetch it elsewhere from {where.page}{_asked(where)} and {by_hand}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{what}: no such revision; see {where.page}/commits/main"
    if isinstance(error, errors.EntryNotFoundError):
        return f"{what}: no such file; see {where.page}/tree/{where.revision or 'main'}"
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return f"{what}: no such repository, or a private one: {log_in} if it is; see {where.page}"
    return f"{what}: cannot be fetched: {error}; try again, or {by_hand}"


def _asked(where: HubWeights) -> str:
    return " (access must be asked for there)" if where.gated else ""


def _refused(error: Exception) -> bool:
    """The hub tells no difference between a hidden and a missing repository to strangers."""
    response: Any = getattr(error, "response", None)
    return getattr(response, "status_code", None) in {401, 403, 404}
