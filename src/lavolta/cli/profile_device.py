"""`lavolta device profile`: measure the device that this runs on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lavolta.cli.output import JsonOption, cell, quiet_stdout, say, show, table
from lavolta.cli.signals import orderly_end
from lavolta.errors import UserInputError

if TYPE_CHECKING:
    from rich.console import Console

    from lavolta.devices.profiling import Profiled


def profile_device(
    out: Annotated[Path, typer.Option("--out", help="The profile to write.")] = Path("device.toml"),
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the profile; from the name of the file when absent.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer shapes, clocks and rounds: good for a first look, less exact.")
    ] = False,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Time up to so many threads; all cores when absent.")
    ] = None,
    power_s: Annotated[
        float, typer.Option("--power-s", min=0.0, help="Seconds to look at power, idle and busy each; 0: do not.")
    ] = 10.0,
    root: Annotated[Path, typer.Option("--root", help="Where sysfs is mounted.")] = Path("/sys"),
    as_json: JsonOption = False,
) -> None:
    """Profile the device that this runs on: topology, clocks, times of the kernels, power, and the fitted model.

    An interrupted run continues when the same command is given again.

    Example: `lavolta device profile --out my-board.toml`
    """
    if out.suffix != ".toml":
        raise UserInputError(f"--out is {out}; a profile is a .toml file.")
    if out.is_dir():
        raise UserInputError(f"--out {out} is a folder; name a file that does not exist, or one to replace.")
    from lavolta.cli.progress import open_progress
    from lavolta.devices.profiler import Machine, Options
    from lavolta.devices.profiling import profile_device as measure
    from lavolta.devices.profiling import safe_name
    from lavolta.devices.rendering import render
    from lavolta.files import make_folder, write_whole
    from lavolta.runtime.kernel_timing import KernelBench

    make_folder(out.parent)
    journal = out.with_name(f"{out.name}.journal")
    with orderly_end(), quiet_stdout(), KernelBench() as bench:
        profiled = measure(
            bench,
            name or safe_name(out.stem),
            journal,
            Options(quick=quick, power_s=power_s, max_threads=threads),
            Machine(root=root),
            open_progress(),
        )
    write_whole(out, render(profiled.profile, "Made by `lavolta device profile`.").encode())
    # Until the profile is on the disk, an hour of measurements is in the journal alone.
    journal.unlink(missing_ok=True)
    show(as_json, _data(profiled, out), lambda console: _draw(console, profiled, out))


def _data(profiled: Profiled, out: Path) -> dict[str, Any]:
    return {
        "profile": out,
        "name": profiled.profile.name,
        "measurements": profiled.measurements,
        "resumed": profiled.resumed,
        "notes": profiled.notes,
        "fits": {
            cluster: {
                "median_error_percent": fit.median_error_percent,
                "p95_error_percent": fit.p95_error_percent,
                "max_error_percent": fit.max_error_percent,
                "samples": fit.samples,
                "by_kind": fit.by_kind,
            }
            for cluster, fit in profiled.fits.items()
        },
    }


def _draw(console: Console, profiled: Profiled, out: Path) -> None:
    rows = []
    for cluster in profiled.profile.clusters:
        fit = profiled.fits[cluster.name]
        rows.append(
            [
                cluster.name,
                cluster.latency[0].isa,
                f"{cluster.cores}",
                f"{cluster.steps[0].freq_mhz:,.0f} - {cluster.max_mhz:,.0f}",
                f"{fit.samples:,}",
                cell(fit.median_error_percent, 1),
                cell(fit.p95_error_percent, 1),
                cell(fit.max_error_percent, 1),
            ]
        )
    heads = ("cluster", "kernels", "cores", "MHz", "timings", "median error (%)", "95th percentile", "worst")
    table(console, "How well the fitted model predicts shapes it had not seen", heads, rows, text_columns=2)
    for name, fit in profiled.fits.items():
        if fit.by_kind:
            console.print()
            kinds = [
                [each.kind, f"{each.samples:,}", cell(each.median_percent, 1), cell(each.p95_percent, 1)]
                for each in fit.by_kind
            ]
            table(
                console, f"The same by kind, {name}", ("kind", "timings", "median error (%)", "95th percentile"), kinds
            )
    if profiled.notes:
        console.print()
        say(console, "What could not be had:")
        for note in profiled.notes:
            say(console, f"- {note}")
    console.print()
    say(console, f"Wrote {out}; `lavolta device show {out}` shows it, and every --device option takes it.")
