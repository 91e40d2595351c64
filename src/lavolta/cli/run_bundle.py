"""`lavolta run`: answers of a bundle at a chosen level, with the time that they took here."""

from __future__ import annotations

import math
import sys
import time
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lavolta.cli.compress import check_positive
from lavolta.cli.output import JsonOption, cell, say, show, table
from lavolta.errors import InfeasibleError, UserInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from lavolta.runtime.calls import Text
    from lavolta.runtime.engine import Model

TRIES = 5
CALIBRATED = 4  # quantiles of the texts' lengths that are measured, beside the shortest
LIKELY_WORDS = 5


def run(
    bundle: Annotated[Path, typer.Argument(help="A bundle that `lavolta compress` wrote.")],
    level: Annotated[
        str | None, typer.Option("--level", help="Name or number of the level; the densest (0) when absent.")
    ] = None,
    max_latency_ms: Annotated[
        float | None, typer.Option("--max-latency-ms", help="Take the densest level that answers within T ms here.")
    ] = None,
    deadline_ms: Annotated[
        float | None,
        typer.Option("--deadline-ms", help="Answer each text within T ms: layers run sparser when time gets short."),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option("--plan", help="Keep the measured costs that --deadline-ms needs in this file, and reuse them."),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option("--text", help="A text, or two with a tab between them; repeat it. Absent: lines of stdin."),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, max=256, help="Threads of the engine.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Run texts through a bundle, natively, at one level of the dial.

    Example: `lavolta run my.lavolta --max-latency-ms 10 --text 'a cat sleeps' --text 'a dog rests'`
    """
    if level is not None and max_latency_ms is not None:
        raise UserInputError("--level and --max-latency-ms exclude one another; give one of them.")
    if deadline_ms is not None and max_latency_ms is not None:
        raise UserInputError("--deadline-ms and --max-latency-ms exclude one another; give one of them.")
    if max_latency_ms is not None:
        check_positive("--max-latency-ms", max_latency_ms)
    if deadline_ms is not None:
        check_positive("--deadline-ms", deadline_ms)
    elif plan is not None:
        raise UserInputError("--plan is for --deadline-ms; give both, or neither.")
    import lavolta

    with lavolta.open(bundle, threads=threads) as model:
        texts = _texts(text)
        if max_latency_ms is not None:
            _switch_within(model, texts, max_latency_ms)
        elif level is not None:
            switch_to(model, level)
        answers: list[list[list[float]]] = []
        facts: list[dict[str, Any]] = []
        token_ids, type_ids = _tokens(model, texts)
        pairs = model.spec.types > 1
        if deadline_ms is not None:
            _make_plan(model, plan, token_ids)
        model.run(token_ids[:1], type_ids[:1] if pairs else None)  # The first run also pages the weights in.
        for ids, types in zip(token_ids, type_ids, strict=True):
            kinds = [types] if pairs else None
            if deadline_ms is None:
                start_ns = time.perf_counter_ns()
                output = model.run([ids], kinds)
                facts.append({"latency_ms": (time.perf_counter_ns() - start_ns) / 1e6})
            else:
                within = model.run_within([ids], deadline_ms, kinds)
                output = within.output
                names = [model.levels[index] for index in within.levels[0].tolist()]
                facts.append({"latency_ms": within.elapsed_ms, "met": within.met, "layer_levels": names})
            answers.append(output.tolist())
        task, name = model.spec.task, model.levels[model.level]
        rows = [
            {"text": " | ".join(given) if isinstance(given, tuple) else given, **fact}
            for given, fact in zip(texts, facts, strict=True)
        ]
        for row, answer in zip(rows, answers, strict=True):
            row.update(_interpret(model, answer))
    data = {"bundle": bundle, "level": name, "task": task, "latency_ms": median(row["latency_ms"] for row in rows)}
    if deadline_ms is not None:
        data.update({"deadline_ms": deadline_ms, "met": sum(row["met"] for row in rows)})
    data["answers"] = rows

    def draw(console: Console) -> None:
        _draw(console, data)

    show(as_json, data, draw)


def _make_plan(model: Model, path: Path | None, token_ids: Sequence[Sequence[int]]) -> None:
    """Load the plan, or measure one for lengths like those of the texts and keep it."""
    if path is not None and path.exists():
        model.load_plan(path)
        return
    lengths = sorted({len(ids) for ids in token_ids})
    last = len(lengths) - 1
    model.calibrate(sorted({lengths[last * part // CALIBRATED] for part in range(CALIBRATED + 1)}))
    if path is not None:
        model.save_plan(path)


def switch_to(model: Model, level: str) -> None:
    """Turn the dial to a level that is given by name or by number."""
    if level not in model.levels and level.isdecimal():
        model.switch(int(level))
    else:
        model.switch(level)


def _texts(given: Sequence[str] | None) -> list[Text]:
    if given:
        lines = list(given)
    elif sys.stdin is None or sys.stdin.isatty():
        raise UserInputError("there is no text; give --text 'some words', or pipe lines into the command.")
    else:
        try:
            lines = sys.stdin.buffer.read().decode("utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise UserInputError(f"the input is not UTF-8 text at byte {error.start}; convert it to UTF-8.") from error
    texts: list[Text] = []
    for line in lines:
        if line.strip():
            first, tab, second = line.partition("\t")
            texts.append((first, second) if tab else line)
    if not texts:
        raise UserInputError("there is no text, only white space; give at least one word.")
    return texts


def _switch_within(model: Model, texts: Sequence[Text], max_latency_ms: float) -> None:
    """Take the densest level whose median time on the longest text keeps the limit."""
    token_ids, type_ids = _tokens(model, texts)
    longest = max(range(len(token_ids)), key=lambda index: len(token_ids[index]))
    ids, types = [token_ids[longest]], [type_ids[longest]] if model.spec.types > 1 else None
    measured_ms = []
    for level in range(len(model.levels)):
        model.switch(level)
        times_ms = []
        for attempt in range(TRIES + 1):
            start_ns = time.perf_counter_ns()
            model.run(ids, types)
            if attempt:  # The first one warms the caches.
                times_ms.append((time.perf_counter_ns() - start_ns) / 1e6)
        measured_ms.append(median(times_ms))
        if measured_ms[-1] <= max_latency_ms:
            return
    closest = min(range(len(measured_ms)), key=measured_ms.__getitem__)
    raise InfeasibleError(
        f"no level answers the longest text ({len(ids[0])} tokens) within {max_latency_ms:g} ms here; the closest is "
        f"{model.levels[closest]} with {measured_ms[closest]:.2f} ms, so allow that, shorten the text, or add threads."
    )


def _tokens(model: Model, texts: Sequence[Text]) -> tuple[list[list[int]], list[list[int]]]:
    """Token and type ids; a text that a language model is to continue has no end, and its last tokens count."""
    if model.spec.task != "language-model":
        return model.tokenize(texts)
    rows = []
    for text in texts:
        if isinstance(text, tuple):
            raise UserInputError(f"{' | '.join(text)!r} is a pair; a language model takes single texts.")
        rows.append(model.codec().prompt(text)[-model.spec.max_tokens :])
    return rows, [[0] * len(row) for row in rows]


def _interpret(model: Model, answer: list[list[float]]) -> dict[str, Any]:
    """What an output `(rows, outputs)` of one text means for the model's task."""
    task, labels = model.spec.task, model.spec.labels
    if task == "language-model":
        shares, codec = _softmax(answer[-1]), model.codec()
        best = sorted(range(len(shares)), key=lambda index: -shares[index])[:LIKELY_WORDS]
        # Special tokens have no text.
        return {"next": [{"word": codec.decode([i]).strip() or f"#{i}", "probability": shares[i]} for i in best]}
    output = answer[0] if len(answer) == 1 else answer
    if task == "classification" and len(answer) == 1:
        shares = _softmax(answer[0])
        best_label = max(range(len(shares)), key=shares.__getitem__)
        return {"output": output, "label": _name(labels, best_label), "probability": shares[best_label]}
    return {"output": output}


def _softmax(logits: Sequence[float]) -> list[float]:
    highest = max(logits)
    weights = [math.exp(value - highest) for value in logits]
    total = sum(weights)
    return [weight / total for weight in weights]


def _name(names: Sequence[str], index: int) -> str:
    return names[index] if index < len(names) else str(index)


def _draw(console: Console, data: dict[str, Any]) -> None:
    answers = data["answers"]
    title = f"Level {data['level']}, median {data['latency_ms']:.2f} ms a text"
    texts = [[row["text"], cell(row["latency_ms"])] for row in answers]
    heads = ["text", "ms"]
    if "deadline_ms" in data:
        title += f", {data['met']} of {len(answers)} within {data['deadline_ms']:g} ms"
        heads.append("layers at")
        for text, row in zip(texts, answers, strict=True):
            text.append(_counted(row["layer_levels"]))
    if data["task"] == "classification":
        rows = [
            [*text, row.get("label", ""), cell(row.get("probability"), 3)]
            for text, row in zip(texts, answers, strict=True)
        ]
        table(console, title, [*heads, "label", "probability"], rows)
    elif data["task"] == "regression":
        rows = [[*text, cell(row["output"][0], 3)] for text, row in zip(texts, answers, strict=True)]
        table(console, title, [*heads, "value"], rows)
    elif data["task"] == "language-model":
        rows = [
            [*text, ", ".join(f"{w['word']} {100 * w['probability']:.0f} %" for w in row["next"])]
            for text, row in zip(texts, answers, strict=True)
        ]
        table(console, title, [*heads, "likely next words"], rows)
    else:
        rows = [
            [*text, cell(_cosine(row["output"], answers[0]["output"]), 3)]
            for text, row in zip(texts, answers, strict=True)
        ]
        table(console, title, [*heads, "cosine to the first"], rows)
        say(console, "The embeddings themselves: add --json.")


def _counted(names: Sequence[str]) -> str:
    """Names of the layers' levels, those in a row counted: "2 L0, 4 L1"."""
    return ", ".join(f"{len(list(group))} {name}" for name, group in groupby(names))


def _cosine(left: Sequence[Any], right: Sequence[Any]) -> float | None:
    if not left or isinstance(left[0], list):
        return None
    product = sum(a * b for a, b in zip(left, right, strict=True))
    size = math.sqrt(sum(a * a for a in left) * sum(b * b for b in right))
    return product / size if size else None
