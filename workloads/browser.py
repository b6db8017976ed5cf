"""A browser as far as logging in needs one: it keeps cookies, follows redirects and fills in forms, from a pod beside the mesh."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

from workloads.caller.client import Caller
from workloads.records import Draw

MOST_REDIRECTS = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Parameters of an authorization request or of its answer that are no secrets (RFC 6749, section 4.1; RFC 7636, section 4.3).
_PUBLIC = frozenset({"response_type", "client_id", "redirect_uri", "scope", "code_challenge_method", "error", "error_description"})
_FORM = ("content-type", "application/x-www-form-urlencoded")


@dataclass(frozen=True)
class Step:
    """One request of a browser and what it was told. `to` is where a redirect leads, else empty; it may carry codes and states.

    `cookies` are those that the answer set, by name, with their attributes; an empty value takes a cookie away.
    """

    at: str
    status: int
    error: str
    version: str
    to: str = ""
    cookies: Mapping[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the step without anything secret: no cookie's value, no parameter but the public ones."""
        return {
            "at": _bare(self.at), "status": self.status, "error": self.error, "version": self.version, "seconds": self.seconds,
            "to": _bare(self.to), "parameters": {name: value if name in _PUBLIC else "(not kept)" for name, value in parameters(self.to).items()},
            "cookies": {name: {"kept": bool(value), "attributes": list(attributes)} for name, (value, attributes) in self.cookies.items()},
        }


def parameters(url: str) -> dict[str, str]:
    """Return the parameters of a URL's query."""
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))


class Browser:
    """Somebody at a browser, with the cookies of one profile.

    Cookies belong to a host whatever the port, as in RFC 6265 (section 8.5). They are kept until they are taken away: one whose
    Max-Age is over is still sent, as a thief would. Finding: Envoy marks its cookies Secure though the edge speaks plain HTTP
    here; this browser sends them all the same, as real ones do to hosts that they trust without TLS.
    """

    def __init__(self, client: Caller, cookies: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self.cookies: dict[str, dict[str, str]] = {host: dict(kept) for host, kept in (cookies or {}).items()}
        self._client = client

    def copy(self, host: str | None = None, changed: Mapping[str, str] | None = None) -> "Browser":
        """Return a browser with the same cookies, those of `host` changed; an empty value leaves one out."""
        copied = Browser(self._client, self.cookies)
        if host is not None:
            copied.cookies[host] = {name: value for name, value in {**copied.cookies.get(host, {}), **(changed or {})}.items() if value}
        return copied

    def step(self, url: str, *, form: Mapping[str, str] | None = None, headers: Sequence[tuple[str, str]] = (), timeout_s: float = 10.0) -> Step:
        """Make one request, a POST where there is a `form`, and take the cookies of its answer."""
        parts = urlsplit(url)
        draw = self._client.draw(
            f"{parts.scheme}://{parts.netloc}", path=_target(url), method="POST" if form is not None else "GET",
            headers=[*self._headers(parts.hostname or ""), *([_FORM] if form is not None else ()), *headers],
            body=urlencode(form).encode() if form is not None else b"", keep_seen=[], timeout_s=timeout_s,
        )
        record = draw.records[0]
        location = record.headers.get("location", [""])[0] if record.status in _REDIRECTS else ""
        given = dict(map(_cookie, record.headers.get("set-cookie", [])))
        self._take(parts.hostname or "", given)
        return Step(url, record.status, record.error, record.version, urljoin(url, location) if location else "", given, draw.seconds)

    def follow(self, url: str, *, form: Mapping[str, str] | None = None, headers: Sequence[tuple[str, str]] = ()) -> list[Step]:
        """Make a request and follow redirects, at most ten; return every step."""
        steps = [self.step(url, form=form, headers=headers)]
        while steps[-1].to and len(steps) <= MOST_REDIRECTS:
            steps.append(self.step(steps[-1].to, headers=headers))
        return steps

    def draw(self, url: str, *, count: int = 1, headers: Sequence[tuple[str, str]] = (), keep_seen: Sequence[str] = ()) -> Draw:
        """Make `count` GET requests with the cookies as they are; nothing secret is in the records."""
        parts = urlsplit(url)
        return self._client.draw(
            f"{parts.scheme}://{parts.netloc}", path=_target(url), count=count, headers=[*self._headers(parts.hostname or ""), *headers],
            keep_headers=["content-type", "server"], keep_seen=keep_seen,
        )

    def _headers(self, host: str) -> list[tuple[str, str]]:
        kept = self.cookies.get(host, {})
        return [("cookie", "; ".join(f"{name}={value}" for name, value in kept.items()))] if kept else []

    def _take(self, host: str, given: Mapping[str, tuple[str, Iterable[str]]]) -> None:
        kept = self.cookies.setdefault(host, {})
        for name, (value, _) in given.items():
            if value:
                kept[name] = value
            else:
                kept.pop(name, None)


def _cookie(line: str) -> tuple[str, tuple[str, tuple[str, ...]]]:
    """Read a Set-Cookie header; a cookie that is taken away has an empty value (RFC 6265, section 3.1)."""
    pair, *attributes = (part.strip() for part in line.split(";"))
    name, _, value = pair.partition("=")
    gone = any(attribute.lower() in ("max-age=0", "expires=thu, 01 jan 1970 00:00:00 gmt") for attribute in attributes)
    return name, ("" if gone or value == "deleted" else value, tuple(attributes))


def _target(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _bare(url: str) -> str:
    return url.partition("?")[0]
