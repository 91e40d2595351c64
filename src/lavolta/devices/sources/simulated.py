"""A device that exists only in numbers: battery, clocks and heat follow a profile; its owner moves its time."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lavolta.devices.cell import Cell, CellModel
from lavolta.devices.profile import DeviceProfile
from lavolta.devices.sources.reading import Degree, Reading
from lavolta.errors import UserInputError

_COOLED_C = 5.0
"""How far below its limit a hot device must cool before it allows the next higher step again."""
_THROTTLE_S = 1.0
"""How often heat changes the allowed step."""


class SimulatedDevice:
    """A `Source` and a `FrequencyControl` at once.

    The battery is a pack of equal cells that share the load, as many as make the energy of the profile's battery; the
    cell decides how the voltage sags, what heavy loads leave unused, and how the pack ages. Without a charger the load
    is drawn from it; on a charger the load is fed from outside, and the pack is charged.

    Heat follows the thermal model of the profile, where it has one: a step is taken away each second above the limit,
    and given back when the device has cooled.

    Args:
        profile: the device.
        cell: the kind of cell; `load_cell()` reads those that ship.
        charge: share of the charge at the start, 0 to 1.
        cycles: age of the battery in full cycles.
        on_ac: whether a charger is plugged in at the start.
        charger_mw: what the charger puts into the battery.
        degree: how far the clock can be controlled.
        start_s: time of the first reading.
    """

    def __init__(
        self,
        profile: DeviceProfile,
        cell: CellModel,
        *,
        charge: float = 1.0,
        cycles: float = 0.0,
        on_ac: bool = False,
        charger_mw: float = 10_000.0,
        degree: Degree = Degree.SETS,
        start_s: float = 0.0,
    ) -> None:
        self.profile = profile
        self.cell = Cell(cell, charge, cycles)
        new_mwh = Cell(cell).capacity_mwh
        self._cells = profile.battery.energy_mwh / new_mwh
        self._charger_mw = charger_mw
        self.on_ac = on_ac
        self._time_s = start_s
        self._slept_s = 0.0
        self._load_mw = 0.0
        self._gave_out = False
        self._degree = degree
        self._freq_mhz = {cluster.name: cluster.max_mhz for cluster in profile.clusters}
        self._cap = {cluster.name: len(cluster.steps) - 1 for cluster in profile.clusters}
        thermal = profile.thermal
        self._temperature_c = None if thermal is None else thermal.ambient_c
        self._until_throttle_s = _THROTTLE_S

    # What its owner does.

    def advance(self, time_s: float, load_mw: float) -> float:
        """Let time pass under a constant load of the whole device; returns the seconds until the battery gave out.

        Raises:
            UserInputError: a time or a load that is negative or not finite.
        """
        if not (time_s >= 0 and load_mw >= 0 and math.isfinite(time_s) and math.isfinite(load_mw)):
            raise UserInputError(f"{load_mw} mW for {time_s} s is not possible.")
        self._load_mw = load_mw
        if self.on_ac:
            self.cell.store(self._charger_mw / self._cells, time_s)
            lasted_s = time_s
            self._gave_out = False
        else:
            lasted_s = self.cell.draw(load_mw / self._cells, time_s)
            self._gave_out |= lasted_s < time_s
        self._time_s += lasted_s
        self._warm(lasted_s, load_mw)
        return lasted_s

    def suspend(self, time_s: float, load_mw: float = 0.0) -> float:
        """The same while the machine sleeps: its running time stands still."""
        lasted_s = self.advance(time_s, load_mw)
        self._slept_s += lasted_s
        return lasted_s

    def plug(self, on_ac: bool) -> None:
        """Plug the charger in or out."""
        self.on_ac = on_ac

    @property
    def time_s(self) -> float:
        """The time of its next reading."""
        return self._time_s

    def clock_mhz(self, cluster: str) -> float:
        """The clock at which a cluster really runs, whether or not anybody may see it."""
        return min(self._freq_mhz[cluster], self._limit(cluster))

    @property
    def empty(self) -> bool:
        """Whether the battery gave out under the last load, or cannot feed even an idle device; not on a charger."""
        idle_mw = self.profile.power.idle_mw
        return not self.on_ac and (self._gave_out or self.cell.current_ma(idle_mw / self._cells) is None)

    @property
    def capacity_mwh(self) -> float:
        """Energy of the full battery at its present age, at rest."""
        return self.cell.capacity_mwh * self._cells

    # What everybody sees.

    def read(self) -> Reading:
        """The device now; see `Reading`."""
        slept_s, self._slept_s = self._slept_s, 0.0
        known = self._degree is not Degree.NONE
        reasons = {} if known else dict.fromkeys(("freq_mhz", "freq_limit_mhz"), self.why)
        if self._temperature_c is None:
            reasons["temperature_c"] = f"the profile of {self.profile.name} has no thermometer."
        return Reading(
            time_s=self._time_s,
            slept_s=slept_s,
            charge_share=self.cell.share,
            charge_mwh=self.cell.energy_mwh * self._cells,
            capacity_mwh=self.capacity_mwh,
            power_mw=self._load_mw,
            power_from="simulation",
            on_ac=self.on_ac,
            freq_mhz={name: self.clock_mhz(name) for name in self._freq_mhz} if known else {},
            freq_limit_mhz={name: self._limit(name) for name in self._cap} if known else {},
            temperature_c=self._temperature_c,
            missing=reasons,
        )

    @property
    def degree(self) -> Degree:
        return self._degree

    @property
    def why(self) -> str:
        return "" if self._degree is Degree.SETS else f"the simulated device {self._degree.words}."

    @property
    def clusters(self) -> Mapping[str, tuple[float, ...]]:
        if self._degree is Degree.NONE:
            return {}
        return {cluster.name: tuple(step.freq_mhz for step in cluster.steps) for cluster in self.profile.clusters}

    def set_mhz(self, cluster: str, freq_mhz: float) -> bool:
        """See `FrequencyControl`."""
        if self._degree is not Degree.SETS or freq_mhz not in self.clusters.get(cluster, ()):
            return False
        self._freq_mhz[cluster] = freq_mhz
        return True

    def follow(self, cluster: str, freq_mhz: float) -> None:
        """What a system governor does: change the clock whatever the degree is. Unknown steps are refused.

        Raises:
            UserInputError: not a step of the cluster.
        """
        self._freq_mhz[cluster] = self.profile.cluster(cluster).step(freq_mhz).freq_mhz

    def release(self) -> None:
        """A system without load governor runs at the highest clock."""
        self._freq_mhz = {cluster.name: cluster.max_mhz for cluster in self.profile.clusters}

    def _limit(self, cluster: str) -> float:
        return self.profile.cluster(cluster).steps[self._cap[cluster]].freq_mhz

    def _warm(self, time_s: float, load_mw: float) -> None:
        thermal = self.profile.thermal
        if thermal is None or self._temperature_c is None:
            return
        if thermal.resistance_c_per_w is None or thermal.time_constant_s is None:
            return
        target_c = thermal.ambient_c + thermal.resistance_c_per_w * load_mw / 1e3
        left_s = time_s
        while left_s > 0:
            step_s = min(left_s, self._until_throttle_s)
            self._temperature_c = target_c + (self._temperature_c - target_c) * math.exp(
                -step_s / thermal.time_constant_s
            )
            left_s -= step_s
            self._until_throttle_s -= step_s
            if self._until_throttle_s <= 0:
                self._until_throttle_s = _THROTTLE_S
                if self._throttle(thermal.limit_c) and abs(self._temperature_c - target_c) < 0.01:
                    # Nothing moves any more.
                    break

    def _throttle(self, limit_c: float) -> bool:
        """Take a step away or give one back; true where there was nothing to do."""
        temperature_c = self._temperature_c or 0.0
        before = dict(self._cap)
        for cluster in self.profile.clusters:
            cap = self._cap[cluster.name]
            if temperature_c > limit_c:
                self._cap[cluster.name] = max(cap - 1, 0)
            elif temperature_c < limit_c - _COOLED_C:
                self._cap[cluster.name] = min(cap + 1, len(cluster.steps) - 1)
        return self._cap == before
