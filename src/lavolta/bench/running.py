"""One comparison from start to end: what `lavolta bench` runs."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavolta.bench.lineup import Lineup
from lavolta.bench.machine import cores, machine
from lavolta.bench.synthetic import (
    CELL_ROWS,
    DEFAULT_SHAPE,
    PRECISIONS,
    level_name,
    peer_spec,
    random_weights,
    shape_spec,
    weights_of,
    write_random_bundle,
)
from lavolta.errors import UserInputError
from lavolta.progress import Progress, SilentProgress
from lavolta.runtime.bundle import BundleFile

USUAL_TOKENS = 128
USUAL_SPARSITIES = (0.0, 0.5, 0.75, 0.9)
FULL, QUICK = (10, 3), (3, 2)
"""Rounds, and runs of everybody in a round."""


@dataclass(frozen=True)
class BenchOptions:
    """What to compare.

    Args:
        tokens: length of the one sequence; ``None`` takes 128, or the model's limit where that is less.
        threads: threads of everybody, at most the cores that this process may use.
        levels: of a bundle: names or numbers; of the random model: sparsities such as ``0.75``. Empty takes all of a
            bundle, and `USUAL_SPARSITIES`.
        peers: run ONNX Runtime, OpenVINO and PyTorch too.
        quick: fewer rounds.
        shape: of the random model, a name in `lavolta.bench.synthetic.SHAPES`.
        cell_rows: of the random model.
        seed: of random weights, masks and token ids.
    """

    tokens: int | None = None
    threads: int = 1
    levels: tuple[str, ...] = ()
    peers: bool = False
    quick: bool = False
    shape: str = DEFAULT_SHAPE
    cell_rows: int = CELL_ROWS
    seed: int = 0


def bench(bundle: Path | None, options: BenchOptions, progress: Progress | None = None) -> dict[str, Any]:
    """Time a bundle, or a random model of a usual shape in every precision, and its peers where asked.

    Returns:
        Plain JSON: ``machine``, ``model``, ``tokens``, ``threads``, ``rounds``, ``repeat`` and ``contestants``, one
        record each with medians and spread, and ``times_faster_than_peer`` of ours, against the fastest peer of all.

    Raises:
        UserInputError: levels, tokens or threads out of range, or a model that peers cannot run.
        BundleError: the bundle cannot be read.
        EngineError: a contestant died while it was measured.
    """
    progress = SilentProgress() if progress is None else progress
    check_threads(options.threads)
    rounds, repeat = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        if bundle is None:
            spec = shape_spec(options.shape)
            sparsities = _sparsities(options.levels)
            weights = random_weights(spec, options.seed)
            made = []
            for precision in PRECISIONS:
                progress.say(f"making a random {precision} model with {len(sparsities)} levels")
                path = Path(folder) / f"{precision}.lavolta"
                write_random_bundle(
                    path,
                    spec,
                    sparsities,
                    weights=weights,
                    cell_rows=options.cell_rows,
                    precision=precision,
                    seed=options.seed,
                )
                names = {f"lavolta-{precision} {level_name(s)}": (i, s) for i, s in enumerate(sparsities)}
                made.append((path, precision, names))
        else:
            opened = BundleFile.open(bundle)
            spec, weights = opened.spec, {}
            if options.peers:
                spec, weights = peer_spec(opened.spec), weights_of(opened)
            chosen = _bundle_levels(opened, options.levels)
            names = {f"lavolta {opened.levels[i]['name']}": (i, float(opened.levels[i]["sparsity"])) for i in chosen}
            made = [(bundle, bundle_precision(opened), names)]
        tokens = check_tokens(options.tokens, spec.max_tokens)
        with Lineup(Path(folder), spec, weights, tokens, progress) as lineup:
            for path, precision, names in made:
                lineup.add_own(path, precision, names, threads=options.threads)
            if options.peers:
                lineup.add_peers(options.threads)
            times = lineup.race(rounds, repeat)
            records = lineup.records(times, next(iter(made[0][2])))
    _compare(records)
    return {
        "machine": machine(),
        "model": spec.as_dict(),
        "tokens": tokens,
        "threads": options.threads,
        "rounds": rounds,
        "repeat": repeat,
        "contestants": records,
    }


def check_threads(threads: int) -> None:
    """Refuse more threads than cores: their times would be those of waiting.

    Raises:
        UserInputError: fewer than one, or more than the cores that this process may use.
    """
    most = cores()
    if not 1 <= threads <= most:
        raise UserInputError(f"threads is {threads}; this process may use 1 to {most} cores.")


def check_tokens(tokens: int | None, most: int) -> int:
    """The length to measure with, 1 to ``most``; `None` is the usual one."""
    if tokens is None:
        return min(USUAL_TOKENS, most)
    if not 1 <= tokens <= most:
        raise UserInputError(f"tokens is {tokens}; this model takes 1 to {most}.")
    return tokens


def bundle_precision(bundle: BundleFile) -> str:
    """``fp32``, ``int8``, or ``mixed`` where the linears differ."""
    found = {str(entry["precision"]) for entry in bundle.manifest["linears"]}
    return found.pop() if len(found) == 1 else "mixed"


def _sparsities(words: tuple[str, ...]) -> tuple[float, ...]:
    if not words:
        return USUAL_SPARSITIES
    try:
        found = sorted({float(word) for word in words})
    except ValueError:
        found = [-1.0]
    if not 0.0 <= found[0] <= found[-1] < 1.0:
        raise UserInputError(f"the levels are {', '.join(words)}; without a bundle give sparsities from 0 to below 1.")
    return tuple(found)


def _bundle_levels(bundle: BundleFile, words: tuple[str, ...]) -> list[int]:
    names = [str(level["name"]) for level in bundle.levels]
    chosen = set()
    for word in words:
        if word in names:
            chosen.add(names.index(word))
        elif word.isdecimal() and int(word) < len(names):
            chosen.add(int(word))
        else:
            raise UserInputError(f"there is no level '{word}'; the bundle has {', '.join(names)}.")
    return sorted(chosen) if words else list(range(len(names)))


def _compare(records: list[dict[str, Any]]) -> None:
    """Put the factor against the fastest peer in our own records."""
    peers = [r for r in records if r["engine"] != "lavolta" and r["median_ms"] is not None]
    best = min(peers, key=lambda record: record["median_ms"]) if peers else None
    for record in records:
        if record["engine"] == "lavolta" and record["median_ms"] is not None:
            record["times_faster_than_peer"] = best["median_ms"] / record["median_ms"] if best else None
            record["fastest_peer"] = best["name"] if best else None
