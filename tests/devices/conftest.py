"""A folder that looks like sysfs, clocks that a test moves, and a user without rights."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lavolta.devices.sources import Clocks


class Sysfs:
    """Write attributes below a root: `put("class/power_supply/BAT0", type="Battery", capacity=50)`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, folder: str, **attributes: object) -> Path:
        path = self.root / folder
        path.mkdir(parents=True, exist_ok=True)
        for name, value in attributes.items():
            (path / name).write_text(f"{value}\n")
        return path

    def battery(self, name: str = "BAT0", **attributes: object) -> Path:
        """A laptop's battery: 50 Wh, half full, giving 10 W."""
        known: dict[str, object] = {
            "type": "Battery",
            "present": 1,
            "status": "Discharging",
            "capacity": 50,
            "energy_now": 25_000_000,
            "energy_full": 50_000_000,
            "power_now": 10_000_000,
            "voltage_now": 11_000_000,
        }
        return self.put(f"class/power_supply/{name}", **(known | attributes))

    def charger(self, online: object, name: str = "AC") -> Path:
        return self.put(f"class/power_supply/{name}", type="Mains", online=online)

    def policy(self, first: int, cpus: str, cur_khz: object = 800_000, **attributes: object) -> Path:
        """A cpufreq policy with three steps and the userspace governor."""
        known: dict[str, object] = {
            "related_cpus": cpus,
            "scaling_available_frequencies": "400000 800000 1400000",
            "scaling_available_governors": "ondemand userspace schedutil",
            "scaling_governor": "schedutil",
            "scaling_setspeed": "<unsupported>",
            "scaling_cur_freq": cur_khz,
            "scaling_min_freq": 400_000,
            "scaling_max_freq": 1_400_000,
            "cpuinfo_min_freq": 400_000,
            "cpuinfo_max_freq": 1_400_000,
        }
        return self.put(f"devices/system/cpu/cpufreq/policy{first}", **(known | attributes))

    def zone(self, index: int, kind: str, millidegrees: object) -> Path:
        return self.put(f"class/thermal/thermal_zone{index}", type=kind, temp=millidegrees)


class ManualClock:
    """Seconds that only a test moves."""

    def __init__(self) -> None:
        self.running_s = 1000.0
        self.elapsed_s = 5000.0

    def tick(self, seconds: float) -> None:
        self.running_s += seconds
        self.elapsed_s += seconds

    def sleep(self, seconds: float) -> None:
        """Suspend: only the elapsed time goes on."""
        self.elapsed_s += seconds

    @property
    def clocks(self) -> Clocks:
        return Clocks(lambda: self.running_s, lambda: self.elapsed_s)


@pytest.fixture
def sysfs() -> Iterator[Sysfs]:
    # Every user may enter it, unlike pytest's own folders.
    root = Path(tempfile.mkdtemp(prefix="lavolta-sysfs-"))
    root.chmod(0o755)
    yield Sysfs(root)
    shutil.rmtree(root)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def unprivileged() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Inside it, file permissions count even where the tests run as root."""

    @contextlib.contextmanager
    def drop() -> Iterator[None]:
        before = os.geteuid()
        if before == 0:
            os.seteuid(65534)
        try:
            yield
        finally:
            if before == 0:
                os.seteuid(0)

    return drop
