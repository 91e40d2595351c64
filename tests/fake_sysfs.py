"""A folder that looks like sysfs, for every test of what reads or sets the device under it."""

from __future__ import annotations

from pathlib import Path


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
        """A cpufreq policy with three steps and the userspace governor; schedutil has the clock."""
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
