"""Where we lose: the sparsity from which our engine beats a dense int8 peer, by size and by instruction set.

Peers run dense int8 (OpenVINO with NNCF, limited to the same instruction set; ONNX Runtime, which cannot be limited, in
the row of the best set only). The break-even is read off between two measured sparsities; ``null`` means that no
measured sparsity wins, 0 that dense wins already.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from lavolta.bench.lineup import Lineup
from lavolta.bench.running import check_threads
from lavolta.bench.script import finish, head, markdown, number, options
from lavolta.bench.synthetic import PRECISIONS, SHAPES, level_name, random_weights, shape_spec, write_random_bundle
from lavolta.cli.progress import Progress, open_progress
from lavolta.runtime.engine import instruction_sets

SPARSITIES = (0.0, 0.25, 0.5, 0.75, 0.9)
PEER_LIMITS = {"avx2": "avx2", "avx_vnni": "avx2_vnni", "avx512": "avx512", "avx512_vnni": "avx512_vnni"}
"""Our instruction sets, and the limit that gives a peer the same instructions; the best set has no limit."""
FULL, QUICK = (6, 3), (3, 2)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Every shape and every instruction set, one comparison each."""
    check_threads(args.threads)
    progress = open_progress()
    best = instruction_sets()[-1]
    sets = [name for name in instruction_sets() if name in PEER_LIMITS and name != best] + [best]
    shapes = [args.shape] if args.quick else list(SHAPES)
    if args.quick and len(sets) > 2:
        sets = [sets[0], best]
    rows = []
    for shape in shapes:
        rows += compare(shape, sets, args, progress)
    return {
        **head("where_it_loses", args),
        "shapes": {
            shape: dict(zip(("layers", "hidden", "heads", "ffn"), SHAPES[shape], strict=True)) for shape in shapes
        },
        "sparsities": list(SPARSITIES),
        "repetitions": (QUICK if args.quick else FULL)[0] * (QUICK if args.quick else FULL)[1],
        "rows": rows,
    }


def compare(shape: str, sets: list[str], args: argparse.Namespace, progress: Progress) -> list[dict[str, Any]]:
    """The rows of one shape."""
    rounds, repeat = QUICK if args.quick else FULL
    spec = shape_spec(shape, max(512, args.tokens))
    weights = random_weights(spec, args.seed)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for precision in PRECISIONS:
            write_random_bundle(
                folder / precision, spec, SPARSITIES, weights=weights, cell_rows=args.cell_rows, precision=precision
            )
        for isa in sets:
            last = isa == sets[-1]
            with Lineup(folder, spec, weights, args.tokens, progress) as lineup:
                for precision in PRECISIONS:
                    levels = {f"{precision} {level_name(s)}": (i, s) for i, s in enumerate(SPARSITIES)}
                    lineup.add_own(folder / precision, precision, levels, threads=args.threads, isa=isa)
                limit = None if last else PEER_LIMITS[isa]
                lineup.add_peer("openvino", "int8", threads=args.threads, isa=limit)
                if last:
                    lineup.add_peer("onnxruntime", "int8", threads=args.threads)
                times = lineup.race(rounds, repeat)
                records = {r["name"]: r for r in lineup.records(times, f"{PRECISIONS[0]} {level_name(0.0)}")}
            for precision in PRECISIONS:
                rows.append({"shape": shape, "isa": isa, "precision": precision, **result_row(records, precision)})
    return rows


def result_row(records: dict[str, dict[str, Any]], precision: str) -> dict[str, Any]:
    """Our times by sparsity, the fastest int8 peer, and where the two meet."""
    peers = [r for r in records.values() if r["engine"] != "lavolta"]
    present = [peer for peer in peers if peer["median_ms"] is not None]
    ours = {f"{s:g}": records[f"{precision} {level_name(s)}"]["median_ms"] for s in SPARSITIES}
    row: dict[str, Any] = {"ours_ms": ours, "peers": {peer["name"]: peer["median_ms"] for peer in peers}}
    row["reasons"] = {peer["name"]: peer["reason"] for peer in peers if peer["median_ms"] is None}
    row["peer_computed_with"] = {peer["name"]: peer["instruction_set"] for peer in present}
    if not present:
        return {**row, "fastest_peer": None, "break_even_sparsity": None}
    best = min(present, key=lambda peer: peer["median_ms"])
    meets = break_even(list(SPARSITIES), list(ours.values()), best["median_ms"])
    return {**row, "fastest_peer": best["name"], "break_even_sparsity": meets}


def break_even(sparsities: list[float], ours_ms: list[float], peer_ms: float) -> float | None:
    """Least sparsity that is no slower than the peer; between two measured ones the time is taken to be straight."""
    if ours_ms[0] <= peer_ms:
        return 0.0
    for index in range(1, len(sparsities)):
        slow, fast = ours_ms[index - 1], ours_ms[index]
        if fast <= peer_ms:
            share = (slow - peer_ms) / (slow - fast)
            return sparsities[index - 1] + share * (sparsities[index] - sparsities[index - 1])
    return None


def table(result: dict[str, Any]) -> str:
    """What the README shows."""
    rows = []
    for entry in result["rows"]:
        peer = entry["fastest_peer"]
        meets = entry["break_even_sparsity"]
        words = "no peer ran" if peer is None else "always slower" if meets is None else f"{100 * meets:.0f} %"
        rows.append(
            [
                entry["shape"],
                entry["isa"],
                entry["precision"],
                " / ".join(number(value, 1) for value in entry["ours_ms"].values()),
                "-" if peer is None else f"{peer} {entry['peers'][peer]:.1f}",
                words,
            ]
        )
    ours = "ours, ms at " + " / ".join(f"{100 * s:.0f}" for s in result["sparsities"]) + " %"
    return markdown(["shape", "instruction set", "precision", ours, "fastest dense int8 peer, ms", "we win from"], rows)


def main() -> None:
    args = options(__doc__ or "").parse_args()
    result = measure(args)
    finish(result, table(result), args.json)


if __name__ == "__main__":
    main()
