"""The demo: a real sentence encoder compressed, run at every level on this computer, and danced along a battery."""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import lavolta
from lavolta.devices.energy import Accounting, energy_mj
from lavolta.devices.latency import latency_ms
from lavolta.devices.loading import load as load_device
from lavolta.devices.profile import DeviceProfile
from lavolta.errors import BundleError
from lavolta.files import make_folder, write_whole
from lavolta.progress import Progress, SilentProgress
from lavolta.report.page import write_report
from lavolta.runtime import measure
from lavolta.runtime.engine import Model, open_bundle
from lavolta.runtime.packed_tensors import int8_linears
from lavolta.runtime.policies import make_policy
from lavolta.runtime.scenario import LevelWork, Scenario
from lavolta.runtime.simulation import SimulationResult, improvement, simulate
from lavolta.runtime.work import work_of
from lavolta.systems.rt3.options import CompressOptions, fingerprint
from lavolta.systems.rt3.recipe import compress

MODEL = "all-MiniLM-L6-v2"
POLICIES = ("no-reconfiguration", "hardware-only", "rt3", "lavolta")
EXPECTED_S = {
    "read the model and the text": 10.0,
    "calibrate": 15.0,
    "search the cuts": 70.0,
    "compensate": 20.0,
    "distil all levels": 310.0,
    "judge every level": 20.0,
    "write the bundle": 5.0,
    "time every level": 5.0,
    "spend a battery charge": 2.0,
    "write the report": 2.0,
}


def run_demo(out: Path, progress: Progress | None = None, steps: int | None = None) -> dict[str, Any]:
    """Compress all-MiniLM-L6-v2 for the Odroid-XU3, measure it here, simulate a charge, and write the report.

    Writes ``model.lavolta``, ``result.json`` and ``report.html`` to ``out``; what is already there is not made again,
    and an interrupted run continues.

    Args:
        steps: of distillation; ``None`` takes the default of `CompressOptions`.

    Returns:
        What ``result.json`` holds (`docs/reference/result.md`).
    """
    progress = progress or SilentProgress()
    make_folder(out)
    options = CompressOptions(MODEL) if steps is None else CompressOptions(MODEL, steps=steps)
    mark = fingerprint(options)
    result_file, page = out / "result.json", out / "report.html"
    bundle = out / "model.lavolta"
    done = _earlier(result_file, bundle, mark)
    if done is not None:
        if not page.exists():
            write_report(done, page)
        progress.say(f"{out} is already made; delete it to start anew")
        return done
    progress.plan(EXPECTED_S)
    _discard_broken(bundle)
    made = compress(MODEL, out=bundle, progress=progress, steps=options.steps)
    result = measure_bundle(bundle, made, options, progress)
    result["mark"] = mark
    with progress.stage("write the report"):
        write_report(result, page)
        # Last: where it is, the page is of the same run.
        write_whole(result_file, f"{json.dumps(result, indent=1)}\n".encode())
    return result


def measure_bundle(bundle: Path, made: dict[str, Any], options: CompressOptions, progress: Progress) -> dict[str, Any]:
    """Latency and switch time of a bundle here, its predicted cost on the device, and a charge per policy."""
    seconds: dict[str, float] = dict(made["seconds"])
    profile = load_device(options.device)
    with open_bundle(bundle) as model:
        start = time.perf_counter()
        rounds = 15
        with progress.stage("time every level", rounds) as stage:
            latencies = measure.level_latencies_ms(model, options.tokens, rounds, stage.advance)
            switches = measure.switch_times(model)
        seconds["time every level"] = round(time.perf_counter() - start, 2)
        levels, works = _levels(model, made, profile, options, latencies)
    with progress.stage("spend a battery charge"):
        period_ms = made["deadline_ms"]
        scenario = Scenario(
            profile, works, made["deadline_ms"], period_ms, threads=(options.threads,), accounting=Accounting.CPU
        )
        charges = {name: simulate(scenario, make_policy(name, scenario)) for name in POLICIES}
    ours, base = charges["lavolta"], charges["no-reconfiguration"]
    return {
        "format": 1,
        "levels": levels,
        "model": {
            "name": MODEL,
            "bundle_bytes": made["bytes"],
            "text": made["text_source"],
            "held_out_texts": made["judged_texts"],
        },
        "device": {"name": profile.name, "title": profile.title, "power": "CPU only", "tokens": options.tokens},
        "deadline_ms": made["deadline_ms"],
        "period_ms": period_ms,
        "switch_us_p50": switches.us_p50,
        "switch_us_p99": switches.us_p99,
        "bytes_moved_per_switch": switches.bytes_moved,
        "policies": {name: _policy(result) for name, result in charges.items()},
        "our_policy": "lavolta",
        "baseline_policy": "no-reconfiguration",
        "inferences_per_charge": {name: result.inferences for name, result in charges.items()},
        "deadline_misses": {name: result.deadline_misses for name, result in charges.items()},
        "improvement": improvement(ours, base),
        "baseline": base.baseline,
        "assumptions": _assumptions(profile),
        "environment": {
            "cpu": measure.cpu_name(),
            "threads": 1,
            "date": datetime.now(timezone.utc).date().isoformat(),
            "lavolta": lavolta.__version__,
        },
        "seconds": seconds,
    }


def _levels(
    model: Model,
    made: dict[str, Any],
    profile: DeviceProfile,
    options: CompressOptions,
    latencies: list[float],
) -> tuple[list[dict[str, Any]], tuple[LevelWork, ...]]:
    cell_rows = int(model.manifest["cell_rows"])
    levels: list[dict[str, Any]] = []
    works: list[LevelWork] = []
    for index, level in enumerate(model.manifest["levels"]):
        work = work_of(model.spec, level["kept_cells"], cell_rows, options.tokens, int8_linears(model.manifest))
        freq = level["freq_mhz"]
        time_ms = latency_ms(profile, work, freq, options.threads)
        levels.append(
            {
                **made["levels"][index],
                "latency_ms": latencies[index],
                "dense_latency_ms": latencies[0],
                "device_latency_ms": time_ms,
                "device_energy_mj": energy_mj(profile, freq, time_ms, options.threads),
            }
        )
        works.append(LevelWork(level["name"], work, level["fidelity"]))
    return levels, tuple(works)


def _policy(result: SimulationResult) -> dict[str, Any]:
    return {
        "title": result.baseline,
        "inferences": result.inferences,
        "misses": result.deadline_misses,
        "time_h": result.time_h,
        "curve": [list(point) for point in result.curve],
        "energy_by_level_mj": {name: 3600.0 * mwh for name, mwh in result.energy.by_level_mwh.items()},
        "time_by_level_h": result.time_by_level_h,
        "mean_fidelity": result.mean_score,
    }


def _assumptions(profile: DeviceProfile) -> list[dict[str, str]]:
    cluster = profile.cluster()
    sources = {
        "frequencies and voltages": cluster.steps_source,
        "power": cluster.power_source,
        "latency": cluster.coefficients().source,
        "idle and board power": profile.power.source,
        "switch costs": profile.switching.source,
        "battery": profile.battery.source,
    }
    return [
        {"text": f"{what}: {source.text}", "label": source.label}
        for what, source in sources.items()
        if source is not None
    ]


def _earlier(result_file: Path, bundle: Path, mark: str) -> dict[str, Any] | None:
    """The result of an earlier run with the same options whose bundle still opens."""
    try:
        result = json.loads(result_file.read_text(encoding="utf-8"))
        with open_bundle(bundle):
            return result if isinstance(result, dict) and result.get("mark") == mark else None
    except (OSError, ValueError, BundleError):
        return None


def _discard_broken(bundle: Path) -> None:
    """The demo's own file may be of another version, or damaged: it is made again rather than refused."""
    try:
        with open_bundle(bundle):
            pass
    except BundleError:
        bundle.unlink(missing_ok=True)
