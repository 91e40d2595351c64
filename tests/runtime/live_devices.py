"""The Odroid's little cluster with toy levels, and a governor that serves on it."""

from collections.abc import Sequence

from lavolta import devices
from lavolta.devices import Accounting, Work
from lavolta.devices.sources import SimulatedDevice
from lavolta.runtime.governor import Goal
from lavolta.runtime.governor_loop import LiveGovernor, Served
from lavolta.runtime.governor_simulated import SimulatedRunner
from lavolta.runtime.scenario import LevelWork, Scenario

BASE = devices.load("odroid-xu3-a7")
CLUSTER = BASE.cluster().name


def level(name: str, kept_macs: float, score: float) -> LevelWork:
    return LevelWork(name, Work(8, 16, kept_macs, 0.0, 0.0, 0.0), score)


# At 1400 MHz: 59.5, 41.7, 33.3 and 16.7 ms.
LEVELS = (level("M1", 50e6, 0.9), level("M2", 35e6, 0.88), level("M3", 28e6, 0.85), level("M4", 14e6, 0.7))
PERIOD_S = 0.08
# The same a hundred times as slow: a battery that lasts hours is then spent in a few hundred requests.
SLOW = tuple(level(known.name, 100 * known.work.kept_macs, known.score) for known in LEVELS)


def profile(capacity_mwh: float = 1000.0, board_mw: float = 20.0) -> devices.DeviceProfile:
    battery = BASE.battery.model_copy(update={"capacity_mah": None, "capacity_mwh": capacity_mwh})
    power = BASE.power.model_copy(update={"board_mw": board_mw})
    return BASE.model_copy(update={"battery": battery, "power": power})


def scenario(device: SimulatedDevice, gap_ms: float | None = 0.0) -> Scenario:
    return Scenario(device.profile, LEVELS, 80.0, 80.0, accounting=Accounting.BOARD, gap_ms=gap_ms)


def governed(
    device: SimulatedDevice, goal: Goal, slowdowns: Sequence[float] = (1.0,)
) -> tuple[LiveGovernor, SimulatedRunner]:
    runner = SimulatedRunner(device, LEVELS, slowdowns=slowdowns, compute=lambda request, name: (request, name))
    return LiveGovernor(scenario(device), goal, runner, device, device, runner.now_s), runner


def serve(device: SimulatedDevice, goal: Goal, count: int, slowdowns: Sequence[float] = (1.0,)) -> list[Served]:
    governor, runner = governed(device, goal, slowdowns)
    start_s, served = runner.now_s(), []
    for index in range(count):
        arrival_s = start_s + index * PERIOD_S
        runner.wait_until(arrival_s)
        served.append(governor.serve(index, arrival_s))
    governor.close()
    assert [s.output for s in served] == [(s.index, s.level) for s in served]
    assert [s.index for s in served] == list(range(count))
    return served
