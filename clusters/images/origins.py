"""Where images come from: pulled as upstream published them, or built here from packages."""

from enum import StrEnum

import requests

from clusters import progress
from clusters.images.registry import UPSTREAMS
from clusters.versions import Versions

_ANSWERS_WITHIN = 3.0
OPTIONS = ("auto", "published", "source")


class Origin(StrEnum):
    """One of the two origins; `auto` is a question, not an origin."""

    PUBLISHED = "published"
    SOURCE = "source"


def resolve_origin(option: str, versions: Versions) -> Origin:
    """Return the origin a person asked for; for `auto`, ask whether the node image's registry answers.

    Raises:
        ValueError: the option is none of OPTIONS.

    """
    if option != "auto":
        return Origin(option)
    host = versions.images["node"].published.host
    said = _ask(UPSTREAMS.get(host, f"https://{host}"))
    origin = Origin.PUBLISHED if said.startswith("HTTP") else Origin.SOURCE
    progress.say(f"images: {origin} ({host} answered {said})" if origin is Origin.PUBLISHED else f"images: {origin} ({host}: {said})")
    return origin


def _ask(address: str) -> str:
    try:
        status = requests.get(f"{address}/v2/", timeout=_ANSWERS_WITHIN, allow_redirects=False).status_code
    except requests.RequestException as error:
        return f"no answer, {type(error).__name__}"
    # 401 asks for a token, which is how a registry greets; anything else is a portal or a proxy that refuses.
    return f"HTTP {status}" if status in {requests.codes.ok, requests.codes.unauthorized} else f"refused with {status}"
