"""Addresses of servers, as people give them."""

from __future__ import annotations

from typing import Literal
from urllib.parse import parse_qsl, urlsplit, urlunsplit

Api = Literal["chat", "completions"]


PATHS: dict[Api, str] = {"chat": "/chat/completions", "completions": "/completions"}


def base_of(url: str, api: Api) -> tuple[str, dict[str, str]]:
    """Return the address that paths are put behind, and the query."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    for other in ("chat", "completions"):
        if path.endswith(PATHS[other]):
            if other != api:
                raise ValueError(f"endpoint is {url!r}, which is not of the API {api!r}")
            path = path.removesuffix(PATHS[other])
            break
    else:
        path = path or "/v1"
    base = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
    return base, dict(parse_qsl(parts.query))
