"""`lavolta serve`: answer requests of other programs, the governor before each of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lavolta.cli import governing
from lavolta.cli.compress import check_positive
from lavolta.cli.output import JsonOption, cell, say, show, table
from lavolta.errors import UserInputError

if TYPE_CHECKING:
    from rich.console import Console

    from lavolta.runtime.engine import Model
    from lavolta.runtime.governed import Governed
    from lavolta.serve.service import Service

PORT = 8421


def serve(
    bundle: Annotated[Path, typer.Argument(help="A bundle that `lavolta compress` wrote.")],
    deadline_ms: governing.Deadline,
    until: governing.Until = None,
    reserve: governing.Reserve = None,
    min_score: governing.MinScore = None,
    mean_score: governing.MeanScore = None,
    margin: governing.Margin = governing.MARGIN,
    device: governing.Device = None,
    socket: Annotated[Path | None, typer.Option("--socket", help="Listen at this Unix socket.")] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port", min=0, max=65535, help=f"Listen at this port; 0: a free one. Absent: {PORT} without --socket."
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address of the port, of this computer alone.")] = "127.0.0.1",
    allow_remote: Annotated[
        bool,
        typer.Option("--allow-remote", help="Allow a --host that other machines reach; nobody is asked who it is."),
    ] = False,
    queue: Annotated[int, typer.Option("--queue", min=1, max=4096, help="How many requests may wait.")] = 16,
    simulate: governing.Simulate = False,
    charge: Annotated[
        float, typer.Option("--charge", min=0.0, max=1.0, help="Charge of the simulated device at the start, 0 to 1.")
    ] = 1.0,
    speed: Annotated[
        float, typer.Option("--speed", help="Seconds of the simulated device in a second of this computer.")
    ] = 1.0,
    tokens: governing.Tokens = None,
    threads: governing.Threads = 1,
    cluster: governing.Clusters = None,
    keep_clock: governing.KeepClock = False,
    sysfs: governing.Sysfs = Path("/sys"),
    seed: governing.Seed = 0,
    as_json: JsonOption = False,
) -> None:
    """Serve texts over HTTP, on a Unix socket or a port of this computer, under the governor.

    SIGTERM, SIGHUP or Ctrl-C: no more requests are taken, those that wait are answered, the clock is given back.

    Example: `lavolta serve my.lavolta --deadline-ms 2500 --until 8h --simulate --socket /tmp/lavolta.sock`
    """
    check_positive("--deadline-ms", deadline_ms)
    if not simulate and (charge, speed) != (1.0, 1.0):
        raise UserInputError("--charge and --speed are of a simulated device; give --simulate too.")
    from lavolta.serve import running
    from lavolta.serve.addresses import listening
    from lavolta.serve.notify import Notifier
    from lavolta.serve.service import Service

    goal = governing.goal_of(until, reserve, min_score, mean_score, margin)
    if port is None and socket is None:
        port = PORT
    scenario, goal, length = governing.scenario_of(
        bundle,
        device,
        deadline_ms,
        None,
        tokens,
        threads,
        goal,
        cluster,
        simulate,
    )
    with ExitStack() as opened:
        models = governing.models_of(bundle, scenario, threads, cluster is not None, simulate, opened)
        model = next(iter(models.values()))
        if model.spec.task == "language-model":
            raise UserInputError(
                f"{bundle} is a language model, and serve answers with one vector a text; use `lavolta generate`."
            )
        # Sockets come first: calibrating takes a while, and a port that is taken should be known at once.
        with listening(socket, host, port, remote=allow_remote) as where:
            place = _place(scenario, goal, models, length, simulate, charge, seed, sysfs, not keep_clock)
            told = governing.Told(goal, scenario)
            with Service(tuple(models.values()), place, _pace(place, speed), queue=queue, on_answer=told) as service:
                names = ", ".join(where.names)

                def started() -> None:
                    print(f"lavolta: serving {bundle} at {names}; Ctrl-C ends it.", file=sys.stderr, flush=True)

                running.run(service, where, started=started, notifier=Notifier())
    data = {"bundle": bundle, "device": scenario.profile.name, "simulated": simulate, **_summary(service)}
    show(as_json, data, lambda console: _draw(console, data))


def _place(
    scenario: Any,
    goal: Any,
    models: Mapping[str, Model],
    length: int,
    simulate: bool,
    charge: float,
    seed: int,
    sysfs: Path,
    set_clock: bool,
) -> Governed:
    from lavolta.runtime import governed

    if simulate:
        return governed.simulated(scenario, goal, models[""], length, charge=charge, seed=seed)
    return governed.here(scenario, goal, models, length, sysfs, set_clock=set_clock)


def _pace(place: Governed, speed: float) -> Any:
    from lavolta.serve.pace import RealTime, SimulatedTime

    return RealTime(place.now_s) if place.device is None else SimulatedTime(place, speed)


def _summary(service: Service) -> dict[str, Any]:
    totals, recent = service.recorder.totals(), service.recorder.recent()
    return {
        "deadline_ms": service.deadline_ms,
        "answers": totals.answers,
        "late": totals.late,
        "cut_short": totals.cut_short,
        "predicted_mj": totals.energy_mj,
        "drawn_mj_per_answer": recent["drawn_mj_per_answer"],
        "levels": totals.levels,
        "refused": totals.refused,
    }


def _draw(console: Console, data: dict[str, Any]) -> None:
    rows = [[level, cell(count)] for level, count in data["levels"].items()]
    where = "simulated" if data["simulated"] else "governed"
    table(console, f"{data['device']}, {where}: due after {data['deadline_ms']:g} ms", ["level", "answers"], rows)
    refused = sum(data["refused"].values())
    say(console, f"{data['answers']} answers, {data['late']} late; {refused} requests had none.")
