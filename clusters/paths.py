"""Where things are kept: the cache outside the checkout, the runs inside it."""

import os
from pathlib import Path

import platformdirs

CHECKOUT = Path(__file__).resolve().parent.parent


def cache_root() -> Path:
    """Return `$XDG_CACHE_HOME/faasmesh`: built binaries, image records, the local registry's blobs."""
    return platformdirs.user_cache_path("faasmesh", appauthor=False)


def runs_root() -> Path:
    """Return the folder that holds one sub-folder per run; `FAASMESH_RUNS` moves it."""
    return Path(os.environ.get("FAASMESH_RUNS") or CHECKOUT / ".faasmesh" / "runs")
