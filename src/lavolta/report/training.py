"""One page about a pruning run: what it keeps, and how training and development scores went apart on the way."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lavolta.errors import UserInputError
from lavolta.report.shell import frame, plot, table, write_page
from lavolta.report.words import fixed, percent

_PARTS = (
    ("train", "training rows", "#d55e00"),
    ("held_out", "held-out rows", "#8a8f98"),
    ("dev", "development", "#009e73"),
)
_NEEDED = ("task", "metric", "method", "title", "dense_score", "score", "levels", "curve", "teacher_curve", "steps")


def write_training_page(result: Mapping[str, Any], path: Path) -> Path:
    """Write the page of one result of ``prune``, whole or not at all.

    Raises:
        UserInputError: the result is not one of ``prune``.
        OSError: the file cannot be written.
    """
    write_page(path, render_training(result))
    return path


def read_prune_result(path: Path) -> dict[str, Any] | None:
    """The content of a ``result.json`` of ``prune``; ``None`` for any other file, which others may know."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("kind") == "prune" else None


def render_training(result: Mapping[str, Any]) -> str:
    """The whole page as one string."""
    missing = [name for name in _NEEDED if name not in result]
    if missing:
        raise UserInputError(f"this is no result of prune: it has no {missing[0]}; give the result.json of a run.")
    curves = {"student": result["curve"], "teacher": result["teacher_curve"]}
    shown = {name: curve for name, curve in curves.items() if curve}
    figures = {f"{name}-scores": _scores(curve, str(result["metric"])) for name, curve in shown.items()}
    if "student" in shown:
        figures["gap"] = _gaps(shown)
    body = "\n".join([_head(result), _levels(result), *_where(result), *_plots(result, shown), _foot(result)])
    return frame(f"La Volta: {result['method']} on {result['task']}", body, figures)


def gap_sentence(result: Mapping[str, Any]) -> str:
    """What the curves of one run say about overfitting, in words computed from them."""
    end = _gap(result["curve"][-1])
    words = f"At the end of the training the score on training rows is {end:+.1f} points against development rows"
    if not result["teacher_curve"]:
        return f"{words}."
    dense = _gap(result["teacher_curve"][-1])
    more = "more" if end > dense else "less" if end < dense else "neither more nor less"
    return (
        f"{words}; at the end of the dense fine-tuning it was {dense:+.1f}: this run overfits {more} than the dense "
        "model (one run; `experiments/spd` has the means)."
    )


def search_sentence(search: Mapping[str, Any]) -> str:
    """What was asked of a search for ratios, and what it found."""
    budget = search["budget"]
    if budget.get("device") is None:
        asked = f"{percent(search['overall_ratio'])} of the weights"
    else:
        limits = [
            f"{fixed(budget[name], 1)} {unit}"
            for name, unit in (("deadline_ms", "ms"), ("energy_mj", "mJ"))
            if budget[name] is not None
        ]
        asked = (
            f"{percent(search['overall_ratio'])} of the weights, so that {budget['tokens']} tokens take at most "
            f"{' and '.join(limits)} on {budget['device']} at {fixed(budget['freq_mhz'], 0)} MHz (predicted)"
        )
    origin = "a vector that was drawn" if search["origin"] == "searched" else f"the candidate {search['origin']}"
    return (
        f"The search took away {asked}; of {search['candidates']} candidates the proxy {search['proxy']} chose "
        f"{origin}, in {fixed(search['seconds'], 0)} s."
    )


def _gap(record: Mapping[str, Any]) -> float:
    return float(record["train"]) - float(record["dev"])


def _head(result: Mapping[str, Any]) -> str:
    last = result["levels"][-1]
    headline = (
        f"{percent(last['encoder_sparsity'], 0)} of the encoder's weights gone: {float(result['score']):.2f} "
        f"where the dense model has {float(result['dense_score']):.2f} ({result['metric']})"
    )
    points = [f"{result['method']}: {result['title']}.", gap_sentence(result)]
    if result.get("search"):
        points.append(search_sentence(result["search"]))
    points += [f"{result[doubt]}." for doubt in ("teacher_doubt", "doubt") if result.get(doubt)]
    items = "\n".join(f"<li>{escape(point)}</li>" for point in points)
    kicker = escape(f"La Volta · {result['task']}")
    title = f'<p class="kicker">{kicker}</p>\n<h1>{escape(headline)}</h1>'
    return f'<header>\n{title}\n<ul class="findings">\n{items}\n</ul>\n</header>'


def _levels(result: Mapping[str, Any]) -> str:
    rows = [
        (
            "",
            [
                escape(str(level["name"])),
                percent(level["encoder_sparsity"]),
                percent(level["model_sparsity"]),
                fixed(level["score"], 2),
                fixed(result["dense_score"], 2),
            ],
        )
        for level in result["levels"]
    ]
    return "<h2>The result</h2>\n" + table(
        ["Level", "Zeros in the<br>encoder", "Zeros in the<br>whole model", "Score", "Dense"],
        rows,
        caption="How to read this: scores are those of the whole development split, which chose nothing.",
    )


def _where(result: Mapping[str, Any]) -> list[str]:
    """Where it was pruned: a table of layers by linears; nothing where all are alike."""
    targets: Mapping[str, float] = result.get("targets", {})
    if len(set(targets.values())) < 2:
        return []
    places = {name: name.removeprefix("layers.").split(".", 1) for name in targets}
    found = {(layer, linear): targets[name] for name, (layer, linear) in places.items()}
    linears = list(dict.fromkeys(linear for _, linear in found))
    rows = [
        ("", [escape(layer), *(percent(found.get((layer, linear))) for linear in linears)])
        for layer in dict.fromkeys(layer for layer, _ in found)
    ]
    caption = "How to read this: the share of each linear's weights that went; all together make the budget."
    return ["<h2>Where it was pruned</h2>", table(["Layer", *map(escape, linears)], rows, caption=caption)]


def _plots(result: Mapping[str, Any], shown: Mapping[str, Any]) -> list[str]:
    parts = ["<h2>How the training went</h2>", '<div class="grid wide">']
    titles = {"student": f"Scores under {result['method']}", "teacher": "Scores of the dense fine-tuning"}
    for name in shown:
        parts.append(
            plot(
                f"{name}-scores",
                titles[name],
                "How to read this: where the training line leaves the development line, the model learns its rows by "
                "heart.",
            )
        )
    parts.append("</div>")
    if "student" in shown:
        parts.append(
            plot(
                "gap",
                "Training score minus development score",
                "How to read this: higher is more overfitting; steps are shares of each training.",
            )
        )
    return parts


def _foot(result: Mapping[str, Any]) -> str:
    return (
        f"<footer>{int(result['steps'])} steps. Made by La Volta. This page is one file and loads nothing from the "
        "network.</footer>"
    )


def _scores(curve: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    steps = [record["step"] for record in curve]
    return _figure(
        [_line(words, steps, [record[key] for record in curve], color) for key, words, color in _PARTS], "step", metric
    )


def _gaps(shown: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    colors = {"student": "#009e73", "teacher": "#8a8f98"}
    words = {"student": "pruned", "teacher": "dense"}
    lines = []
    for name, curve in shown.items():
        length = max(1, int(curve[-1]["step"]))
        shares = [100 * record["step"] / length for record in curve]
        lines.append(_line(words[name], shares, [_gap(record) for record in curve], colors[name]))
    return _figure(lines, "share of the training (%)", "points")


def _line(name: str, x: Sequence[float], y: Sequence[float], color: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": list(x),
        "y": list(y),
        "hovertemplate": f"{name}: %{{x:.4g}}, %{{y:.2f}}<extra></extra>",
        "line": {"color": color, "width": 2},
        "marker": {"size": 5, "color": color},
    }


def _figure(lines: Sequence[Mapping[str, Any]], x_title: str, y_title: str) -> dict[str, Any]:
    return {
        "data": list(lines),
        "layout": {
            "xaxis": {"title": {"text": x_title}, "automargin": True},
            "yaxis": {"title": {"text": y_title}, "automargin": True},
            "legend": {"orientation": "h", "y": -0.25},
            "showlegend": True,
        },
    }
