"""The web monitor: one page that loads nothing but the server's own events."""

from __future__ import annotations

from functools import cache

from lavolta.assets import asset, style

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@cache
def text() -> str:
    """The whole page."""
    return asset("serve/page.html").replace("/*css*/", style("serve")).replace("/*js*/", asset("serve/page.js"))
