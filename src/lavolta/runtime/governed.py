"""A governor with the device under it, ready to serve: this computer, or a device that exists only in numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lavolta.devices.cell import load_cell
from lavolta.devices.identity import read_identity, require_same_cpu
from lavolta.devices.sources import (
    Background,
    Checked,
    LinuxClocks,
    LinuxFrequencyControl,
    LinuxSource,
    SimulatedDevice,
    Source,
    cluster_cpus,
)
from lavolta.devices.sources.reading import FrequencyControl
from lavolta.runtime.engine import Model, instruction_sets
from lavolta.runtime.governor import Goal
from lavolta.runtime.governor_engine import EngineRunner
from lavolta.runtime.governor_loop import LiveGovernor
from lavolta.runtime.governor_simulated import SimulatedRunner
from lavolta.runtime.scenario import Scenario
from lavolta.runtime.traffic import uniform_noise

NOISE = 0.2
"""Runs of a simulated device take up to this share more or less than predicted."""
_NOISES = 997
_FIRST_LOOK_S = 2.0


@dataclass(frozen=True)
class Governed:
    """A governor and its device.

    Attributes:
        source, control: the device, as the governor sees it.
        now_s: the clock of arrivals and runs.
        wait_until: lets time pass until a time of that clock.
        over: whether the device has no energy left; never known of a real one.
        device: the device in numbers; none for a real one.
        close: gives the clock back and stops looking at the device.
    """

    governor: LiveGovernor
    source: Source
    control: FrequencyControl
    now_s: Callable[[], float]
    wait_until: Callable[[float], None]
    over: Callable[[], bool]
    close: Callable[[], None]
    device: SimulatedDevice | None = None


def simulated(
    scenario: Scenario, goal: Goal, model: Model, tokens: int, *, charge: float = 1.0, seed: int = 0
) -> Governed:
    """A device in numbers: its clock, battery and times, the answers of this computer.

    Args:
        tokens: length of the sequences to measure the engine's plan with.
        charge: share of a full battery at the start, 0 to 1.
        seed: of the timing noise.
    """
    engine = EngineRunner(model, tokens)
    device = SimulatedDevice(scenario.profile, load_cell(), charge=charge)
    runner = SimulatedRunner(
        device,
        scenario.levels,
        scenario.threads[0],
        uniform_noise(NOISE, _NOISES, np.random.default_rng(seed)),
        # How long the answer takes here does not matter to the device.
        compute=lambda request, level: engine(request, level, float("inf")).output,
    )
    governor = LiveGovernor(scenario, goal, runner, device, device, runner.now_s)
    return Governed(
        governor, device, device, runner.now_s, runner.wait_until, lambda: device.empty, governor.close, device
    )


def here(
    scenario: Scenario,
    goal: Goal,
    models: Model | Mapping[str, Model],
    tokens: int,
    sysfs: Path,
    *,
    set_clock: bool = True,
) -> Governed:
    """This computer.

    Args:
        models: the model; for several clusters one on the cores of each, by name.
        tokens: length of the sequences to measure the engine's plan with.
        sysfs: where the system shows its devices.
        set_clock: false leaves the clock to the system.

    Raises:
        UserInputError: the profile was measured on another processor. One that was never measured anywhere is a
            starting point: corrections are learned.
    """
    if scenario.profile.cpu is not None:
        require_same_cpu(scenario.profile, read_identity(instruction_sets()))
    clusters = cluster_cpus(scenario.profile)
    runner = EngineRunner(models, tokens, clusters if scenario.threads == (1,) else None)
    used = [cluster.name for cluster in scenario.used_clusters]
    control = LinuxFrequencyControl(sysfs, clusters, allowed=set_clock, used=used)
    # A fuel gauge on a slow bus must not delay a request.
    source = Background(
        Checked(
            LinuxSource(sysfs, clusters=clusters, drawn=control.drawn),
            capacity_mwh=scenario.profile.battery.energy_mwh,
        )
    )
    try:
        source.wait(_FIRST_LOOK_S)
        busy = LinuxClocks(sysfs, clusters=clusters)
        governor = LiveGovernor(scenario, goal, runner, source.reader(), control, time.monotonic, busy)
    except BaseException:
        source.close()
        raise

    def wait_until(time_s: float) -> None:
        time.sleep(max(0.0, time_s - time.monotonic()))

    def close() -> None:
        governor.close()
        source.close()

    return Governed(governor, source, control, time.monotonic, wait_until, lambda: False, close)
