"""The frame of every page: one HTML file that needs no network, with Plotly and the figures inside."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

from lavolta.assets import asset, style

# The browser itself refuses every request, so the promise of a page without network does not rest on our care.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def frame(title: str, body: str, figures: Mapping[str, Mapping[str, Any]]) -> str:
    """A whole page.

    Args:
        title: plain text.
        body: HTML; a figure is drawn in the element with the id ``chart-KEY``.
        figures: key to a Plotly figure of plain data.
    """
    from plotly.offline import get_plotlyjs

    # "<" is escaped so that no text in the data can end the script element.
    data = json.dumps(figures, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{style("report")}</style>
</head>
<body>
<main>
{body}
</main>
<script type="application/json" id="figures">{data}</script>
<script>{get_plotlyjs()}</script>
<script>
{asset("report/page.js")}</script>
</body>
</html>
"""


def plot(key: str, title: str, how_to_read: str, height_px: int = 320) -> str:
    """The place of one figure with the words around it."""
    return (
        f'<figure>\n<h3>{escape(title)}</h3>\n<div class="plot" id="chart-{key}" role="img" '
        f'aria-label="{escape(title)}" style="height:{height_px}px"></div>\n'
        f"<figcaption>{escape(how_to_read)}</figcaption>\n</figure>"
    )


def table(
    heads: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], *, caption: str, text_columns: int = 1
) -> str:
    """A table; cells are HTML already. Each row comes with its CSS class."""

    def kind(place: int) -> str:
        return ' class="text"' if place < text_columns else ""

    head = "".join(f'<th scope="col"{kind(place)}>{name}</th>' for place, name in enumerate(heads))
    body = "\n".join(
        f'<tr class="{css}"><th scope="row">{cells[0]}</th>'
        + "".join(f"<td{kind(place)}>{cell}</td>" for place, cell in enumerate(cells[1:], 1))
        + "</tr>"
        for css, cells in rows
    )
    return (
        f'<div class="card">\n<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>\n"
        f'<p class="read">{caption}</p>\n</div>'
    )


def write_page(path: Path, text: str) -> None:
    """Write beside the target and rename, so that a full disk or a power cut leaves the old file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes the file private; a report is as readable as any file the user makes.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
