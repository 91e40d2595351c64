"""The text files that pages are made of; `colors.css` is shared, so that every page has the same colors."""

from __future__ import annotations

from importlib.resources import files


def asset(name: str) -> str:
    """A text file of the package, by its path below it."""
    return files("lavolta").joinpath(name).read_text(encoding="utf-8")


def style(room: str) -> str:
    """The style sheet of a room's page, the shared colors first."""
    return asset("colors.css") + asset(f"{room}/page.css")
