"""Traces on the Hugging Face Hub: `hf://datasets/OWNER/NAME/path/file.npz[@revision]`.

The file is fetched once and kept in the hub's own cache, which `HF_HOME` moves; `HF_HUB_OFFLINE=1`
uses what is there. A revision is a branch, a tag or a commit, behind the file or, as the hub itself
spells it, behind the repository. Without `datasets/` the repository is a model's.
"""

from __future__ import annotations

import logging
import re
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from specmd.errors import SpecmdError

LOG = logging.getLogger("specmd")
_FORM = "hf://datasets/OWNER/NAME/path/file.npz[@revision]"
# One slash is what a Path leaves of two.
_ADDRESS = re.compile(
    r"hf:/{1,2}(?P<kind>datasets/)?(?P<repo>[^/@]+/[^/@]+)(?:@(?P<early>[^/@]+))?"
    r"/(?P<file>[^@]+)(?:@(?P<late>[^@]+))?"
)


def on_hub(path: str | PathLike[str]) -> bool:
    """Say whether a path is an address on the hub."""
    return str(path).startswith("hf:/")


def located(path: str | PathLike[str]) -> Path:
    """Return the path of a file here; one on the hub is fetched, if it is not in the hub's cache.

    Raises:
        SpecmdError: the address is none, there is no such file, the hub is out of reach, or
            huggingface_hub is not installed.

    """
    return _fetched(str(path)) if on_hub(path) else Path(path)


@cache
def _fetched(text: str) -> Path:
    address = re.sub(r"^hf:/+", "hf://", text)
    match = _ADDRESS.fullmatch(text)
    if match is None or (match["early"] and match["late"]):
        raise SpecmdError(f"{address}: not understood as an address on the hub: write {_FORM}")
    try:
        import huggingface_hub as hub
        from huggingface_hub import errors
        from huggingface_hub.utils import logging as hub_logging
    except ModuleNotFoundError:
        raise SpecmdError(
            f"{address}: needs huggingface_hub: pip install 'specmd-bench[hub]'"
        ) from None
    revision = match["late"] or match["early"]
    asked: dict[str, Any] = {
        "repo_id": match["repo"],
        "filename": match["file"],
        "repo_type": "dataset" if match["kind"] else "model",
        "revision": unquote(revision) if revision else None,
    }
    # Its module sets the level when it is imported, and would then tell of each of five attempts.
    hub_logging.get_logger("huggingface_hub").setLevel(logging.ERROR)
    reasons: tuple[tuple[type[Exception], str], ...] = (
        (errors.GatedRepoError, "the repository is gated: ask for access, then `hf auth login`"),
        (errors.RepositoryNotFoundError, "no such repository, or a private one: `hf auth login`"),
        (errors.RevisionNotFoundError, f"no revision '{asked['revision']}' there"),
        (errors.LocalEntryNotFoundError, "not in the hub's cache, and the hub is out of reach"),
        (errors.EntryNotFoundError, "no such file in the repository"),
        (errors.HFValidationError, f"not understood as an address on the hub: write {_FORM}"),
    )
    try:
        if not isinstance(hub.try_to_load_from_cache(**asked), str):
            LOG.info("fetching %s", address)
        return Path(hub.hf_hub_download(**asked))
    except Exception as error:  # the hub raises errors of several libraries
        for kind, reason in reasons:
            if isinstance(error, kind):
                raise SpecmdError(f"{address}: {reason}") from error
        said = " ".join(str(error).split())[:160] or type(error).__name__
        raise SpecmdError(f"{address}: cannot be fetched: {said}") from error
