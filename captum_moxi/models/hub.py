"""Finds out where models and datasets are: in a folder, on the Hugging Face hub, or in its cache."""

import os
from pathlib import Path

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

CONFIG = "config.json"
# Maximum time to wait for an answer of the hub, in seconds.
TIMEOUT_SECONDS = 5


def is_local(name: str | os.PathLike[str]) -> bool:
    """Find a model, and tell whether it can be loaded without the hub.

    Args:
        name (str or path): Hub name or folder.

    Returns:
        bool: True for a folder, and for a model in the cache of the hub if the hub cannot be reached. False for a model
        on the hub.

    Raises:
        ValueError: If there is no such model. The message tells where it was searched.
    """
    # Unlike Path, os.path accepts names that the file system rejects.
    if os.path.isdir(name):
        if not os.path.isfile(os.path.join(name, CONFIG)):
            raise ValueError(
                f"model {str(name)!r} contains no {CONFIG}; pass a folder written by save_pretrained, or a hub name"
            )
        return True
    if os.path.exists(name):
        raise ValueError(f"model {str(name)!r} is a file; pass a folder written by save_pretrained, or a hub name")
    return not _is_on_hub(str(name))


def _is_on_hub(name: str) -> bool:
    """Return whether the hub has a model. False if only the cache has it, because the hub cannot be reached."""
    hub = f"the hub {constants.ENDPOINT}"
    try:
        get_hf_file_metadata(hf_hub_url(name, CONFIG), timeout=TIMEOUT_SECONDS)
    except HFValidationError:
        problem = "is not a folder, and not a valid hub name"
    except GatedRepoError:
        problem = f"is not a folder, and {hub} grants access only after you accept its terms and log in"
    except RepositoryNotFoundError:
        problem = f"is not a folder, and {hub} has no public model of this name"
    except EntryNotFoundError:
        problem = f"is not a folder, and has no {CONFIG} on {hub}"
    except Exception as error:
        # The errors of a connection depend on the HTTP library of the hub's client.
        if isinstance(try_to_load_from_cache(name, CONFIG), str):
            return False
        reason = "offline mode is set" if isinstance(error, OfflineModeIsEnabled) else _first_line(error)
        problem = f"is not a folder, is not in the hub's cache, and {hub} could not be reached ({reason})"
    else:
        return True
    raise ValueError(f"model {name!r} {problem}; pass a folder written by save_pretrained, or the name of a hub model")


def check_dataset(name: str, *, cached: Path) -> None:
    """Check with one request that the hub has a dataset. The package datasets would repeat requests that fail.

    Args:
        name (str): Name of the dataset on the hub.
        cached (Path): Folder that exists if the dataset was loaded before. It can then be loaded without the hub.

    Raises:
        Exception: The error of the request, if the hub does not have the dataset, or if the hub cannot be reached and
            the dataset is not in the cache.
    """
    try:
        get_hf_file_metadata(hf_hub_url(name, "README.md", repo_type="dataset"), timeout=TIMEOUT_SECONDS)
    except EntryNotFoundError:
        # The dataset exists, but has no README.
        return
    except Exception:
        if not cached.is_dir():
            raise


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
