"""The web monitor: one page that loads nothing but the server's own events."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@cache
def text() -> str:
    """The whole page."""
    return _asset("page.html").replace("/*css*/", _asset("page.css")).replace("/*js*/", _asset("page.js"))


def _asset(name: str) -> str:
    return files("lavolta.serve").joinpath(name).read_text(encoding="utf-8")
