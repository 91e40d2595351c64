"""One encoder, one sequence: our engine at several sparsities, fp32 and int8, beside ONNX Runtime, OpenVINO, PyTorch.

Everybody runs in a process of its own, on the same weights (random, from the seed), with the same number of threads,
and takes turns. Ratios are of medians; above 1, ours is faster. A ratio that cannot be formed is null, with the reason
in ``reasons``.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from lavolta.bench.lineup import Lineup
from lavolta.bench.machine import cores, has_amx
from lavolta.bench.running import check_threads
from lavolta.bench.script import finish, head, markdown, number, options
from lavolta.bench.synthetic import PRECISIONS, random_weights, shape_spec, write_random_bundle
from lavolta.bench.workers import Worker
from lavolta.cli.progress import open_progress

SPARSITIES = (0.0, 0.5, 0.7, 0.75, 0.8, 0.9)
SCALING = (0.5, 0.7, 0.8, 0.9)
REACHED = 0.85
"""Linear layers at sparsity s should take at most (1 - s) / 0.85 of the time at 0."""
TARGETS = {
    "int8_75_vs_ort_int8": 3.3,
    "int8_75_vs_openvino_int8": 2.4,
    "fp32_75_vs_best_fp32": 3.2,
    "dense_fp32_vs_best": 1.0,
    "dense_int8_vs_best_no_amx": 1.0,
    "threads_2_over_1": 1.8,
}
MEANINGS = {
    "int8_75_vs_ort_int8": "int8 at 75 % against ONNX Runtime int8",
    "int8_75_vs_openvino_int8": "int8 at 75 % against OpenVINO int8",
    "fp32_75_vs_best_fp32": "fp32 at 75 % against the faster of ONNX Runtime and OpenVINO fp32",
    "dense_fp32_vs_best": "dense fp32 against the fastest peer in fp32",
    "dense_int8_vs_best_no_amx": "dense int8 against the fastest int8 peer without AMX",
    "threads_2_over_1": "2 threads over 1, the slower to gain of our precisions at 75 %",
}
FULL, QUICK = (20, 3), (3, 2)
NO_AMX = "openvino-int8 without amx"


def own(precision: str, sparsity: float, threads: int = 1) -> str:
    """Name of one of our contestants."""
    return f"lavolta-{precision} {100 * sparsity:g} %{f', {threads} threads' if threads > 1 else ''}"


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run the whole comparison."""
    check_threads(args.threads)
    rounds, repeat = QUICK if args.quick else FULL
    spec, progress = shape_spec(args.shape, max(512, args.tokens)), open_progress()
    weights = random_weights(spec, args.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Lineup(folder, spec, weights, args.tokens, progress) as lineup:
            engines: dict[str, Worker] = {}
            for precision in PRECISIONS:
                path = folder / f"{precision}.lavolta"
                write_random_bundle(
                    path,
                    spec,
                    SPARSITIES,
                    weights=weights,
                    cell_rows=args.cell_rows,
                    precision=precision,
                    seed=args.seed,
                )
                levels = {own(precision, s, args.threads): (i, s) for i, s in enumerate(SPARSITIES)}
                engines[precision] = lineup.add_own(path, precision, levels, threads=args.threads)
                if args.threads == 1 and cores() > 1:
                    levels = {own(precision, s, 2): (i, s) for i, s in enumerate(SPARSITIES) if s in (0.0, 0.75)}
                    lineup.add_own(path, precision, levels, threads=2)
            lineup.add_peers(args.threads)
            if has_amx():
                lineup.add_peer("openvino", "int8", name=NO_AMX, threads=args.threads, isa="avx512_vnni")
            times = lineup.race(rounds, repeat)
            scaling = {
                precision: linear_scaling([worker.linear_ms() for _ in range(3 if args.quick else 9)])
                for precision, worker in engines.items()
                if worker.reason is None
            }
            records = lineup.records(times, own("fp32", 0.0, args.threads))
    return {
        **head("encoder_latency", args),
        "repetitions": rounds * repeat,
        **ratios(records, args.threads),
        "targets": TARGETS,
        "notes": []
        if has_amx()
        else ["This CPU has no AMX: the target against OpenVINO int8 is meant for one that has."],
        "linear_scaling": by_sparsity(scaling),
        "linear_ms": {precision: found["ms"] for precision, found in scaling.items()},
        "median_ms": {record["name"]: record["median_ms"] for record in records},
        "contestants": records,
    }


def linear_scaling(samples: list[list[float]]) -> dict[str, Any]:
    """Time of the linear layers over time at sparsity 0, by sparsity; both numbers of a ratio are of one sample."""
    over = {
        f"{s:g}": statistics.median(sample[index] / sample[0] for sample in samples)
        for index, s in enumerate(SPARSITIES)
    }
    ms = {f"{s:g}": statistics.median(sample[index] for sample in samples) for index, s in enumerate(SPARSITIES)}
    return {"over_dense": over, "ms": ms}


def by_sparsity(scaling: dict[str, Any]) -> dict[str, Any]:
    """For each sparsity the share of the dense time, by precision, and the most that it should be."""
    return {
        f"{s:g}": {
            **{precision: found["over_dense"][f"{s:g}"] for precision, found in scaling.items()},
            "limit": (1 - s) / REACHED,
        }
        for s in SCALING
    }


def ratios(records: list[dict[str, Any]], threads: int, time: str = "median_ms") -> dict[str, Any]:
    """The ratios that the targets are about; `None` with a reason where one cannot be formed.

    Args:
        time: field of the records, in milliseconds.
    """
    by_name = {record["name"]: record for record in records}
    found: dict[str, float | None] = {}
    reasons: dict[str, str] = {}

    def compare(key: str, ours: str, theirs: list[str]) -> None:
        times = {name: by_name[name].get(time) for name in (ours, *theirs) if name in by_name}
        present = [times[name] for name in theirs if times.get(name) is not None]
        if times.get(ours) is not None and present:
            found[key] = min(present) / times[ours]
            return
        why = [by_name[n]["reason"] if n in by_name else "it was not run." for n in (ours, *theirs) if not times.get(n)]
        found[key] = None
        reasons[key] = " ".join(dict.fromkeys(why)) if theirs else "every peer uses AMX here."

    peers = [r["name"] for r in records if r["engine"] != "lavolta"]
    plain_int8 = [name for name in peers if by_name[name]["precision"] == "int8" and not by_name[name].get("amx")]
    compare("int8_75_vs_ort_int8", own("int8", 0.75, threads), ["onnxruntime-int8"])
    compare("int8_75_vs_openvino_int8", own("int8", 0.75, threads), ["openvino-int8"])
    compare("fp32_75_vs_best_fp32", own("fp32", 0.75, threads), ["onnxruntime-fp32", "openvino-fp32"])
    fp32 = [name for name in peers if by_name[name]["precision"] == "fp32"]
    compare("dense_fp32_vs_best", own("fp32", 0.0, threads), fp32)
    compare("dense_int8_vs_best_no_amx", own("int8", 0.0, threads), plain_int8)
    gains = {}
    for record in records:
        two = own(record["precision"], record["sparsity"], 2)
        if record["engine"] == "lavolta" and record["threads"] == 1 and two in by_name and by_name[two].get(time):
            gains[record["name"]] = record[time] / by_name[two][time]
    at_75 = [gain for name, gain in gains.items() if " 75 %" in name]
    found["threads_2_over_1"] = min(at_75) if at_75 else None
    if not at_75:
        reasons["threads_2_over_1"] = "two threads were not compared with one: it needs two cores and --threads 1."
    return {**found, "threads_2_over_1_by_name": gains, "reasons": reasons}


def table(result: dict[str, Any]) -> str:
    """What the README shows."""
    rows = []
    fastest = ratios(result["contestants"], result["threads"], "min_ms")
    for key, meaning in MEANINGS.items():
        value, target = result[key], result["targets"][key]
        verdict = "-" if value is None else "met" if value >= target else "missed"
        rows.append([meaning, number(value), number(fastest[key]), number(target, 1), verdict])
    parts = [markdown(["times faster", "measured", "by the fastest runs", "target", ""], rows)]
    rows = [
        [
            f"{100 * float(s):.0f} %",
            *(number(entry.get(precision)) for precision in ("fp32", "int8")),
            number(entry["limit"]),
        ]
        for s, entry in result["linear_scaling"].items()
    ]
    parts.append(markdown(["linear layers: time over dense at", "fp32", "int8", "at most"], rows))
    rows = [
        [
            record["name"],
            number(record["median_ms"]),
            number(record.get("mad_ms")),
            number(record.get("min_ms")),
            record.get("instruction_set") or record["reason"],
        ]
        for record in sorted(result["contestants"], key=lambda record: record["median_ms"] or float("inf"))
    ]
    parts.append(markdown(["who", "median ms", "± ms", "fastest ms", "computed with"], rows))
    words = "; ".join(f"{key}: {reason}" for key, reason in result["reasons"].items())
    return "\n\n".join([*parts, *([words] if words else []), *result["notes"]])


def main() -> None:
    args = options(__doc__ or "").parse_args()
    result = measure(args)
    finish(result, table(result), args.json)


if __name__ == "__main__":
    main()
