"""What a device is: cores, frequency steps, power, switch costs, battery and latency coefficients, as validated data.

`docs/reference/device-profile.md` is the page that explains every key. Units are part of every name.
"""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lavolta.errors import InfeasibleError, UserInputError

Label = Literal[
    "measured",
    "confirmed",
    "derived",
    "assumption",
    "unverified: high",
    "unverified: medium",
    "unverified: low",
]
CellRows = Literal["1", "2", "4", "8", "16"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)]


class _Record(BaseModel):
    """Strict and frozen: a typing error or a misspelled key is refused, never converted or dropped."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Source(_Record):
    """Where a group of numbers comes from, under which licence, and how far to trust it."""

    text: Annotated[str, Field(min_length=1)]
    licence: Annotated[str, Field(min_length=1)]
    label: Label


class FrequencyStep(_Record):
    """One operating point of a cluster. `active_mw` is the power of one busy core above idle."""

    freq_mhz: Positive
    voltage_mv: Positive | None = None
    active_mw: Positive | None = None


class LatencyCoefficients(_Record):
    """The latency model of one instruction set on one cluster; `lavolta.devices.latency` states the formula.

    Attributes:
        isa: name of the kernel family, such as ``neon``.
        cycles_fixed: core cycles per inference that do not depend on the work.
        cycles_per_kept_mac: cell height to core cycles per kept multiply-accumulate on one thread, fp32 weights.
        cycles_per_kept_mac_int8: the same for int8 weights; absent where they were not measured.
        cycles_per_kept_mac_few, cycles_per_kept_weight_few: for sequences of a few tokens, whose fp32 kernels are their
            own: cycles per kept multiply-accumulate, and per kept weight whatever the number of tokens. Together all
            that the kept work takes; absent where these were not measured apart.
        cycles_per_far_mac, cycles_per_far_mac_int8: what a kept multiply-accumulate takes more where the layer's inputs
            do not fit the nearest cache; absent where that was not measured.
        near_cache_bytes: size of the nearest cache for these inputs.
        cycles_per_cell, cycles_per_cell_int8: cycles per kept cell, whatever the number of tokens.
        cycles_per_band, cycles_per_band_int8: cycles for every visit of a band: once for as many tokens as the kernels
            take at once.
        tokens_per_register: tokens are computed in groups of so many; a part of a group takes as long as a whole one.
        cycles_per_rest_mac: as `cycles_per_kept_mac` for the dense rest (attention, norms, head).
        bandwidth_gb_s: memory bandwidth for streamed bytes; it does not scale with the core clock.
        fixed_us: time per inference that does not scale with the core clock.
        thread_efficiency: what each further thread adds, as a share of the first.
        median_error_percent, p95_error_percent: held-out error of a fit; absent where nothing was measured.
    """

    isa: Name
    cycles_fixed: NonNegative
    cycles_per_kept_mac: Annotated[dict[CellRows, Positive], Field(min_length=1)]
    cycles_per_kept_mac_int8: Annotated[dict[CellRows, Positive], Field(min_length=1)] | None = None
    cycles_per_kept_mac_few: Annotated[dict[CellRows, Positive], Field(min_length=1)] | None = None
    cycles_per_kept_weight_few: Annotated[dict[CellRows, NonNegative], Field(min_length=1)] | None = None
    cycles_per_far_mac: Annotated[dict[CellRows, NonNegative], Field(min_length=1)] | None = None
    cycles_per_far_mac_int8: Annotated[dict[CellRows, NonNegative], Field(min_length=1)] | None = None
    near_cache_bytes: Annotated[int, Field(ge=1024)] | None = None
    cycles_per_cell: NonNegative = 0.0
    cycles_per_cell_int8: NonNegative = 0.0
    cycles_per_band: NonNegative = 0.0
    cycles_per_band_int8: NonNegative = 0.0
    tokens_per_register: Annotated[int, Field(ge=1, le=1024)] = 1
    cycles_per_rest_mac: NonNegative
    bandwidth_gb_s: Positive | None = None
    fixed_us: NonNegative = 0.0
    thread_efficiency: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    median_error_percent: NonNegative | None = None
    p95_error_percent: NonNegative | None = None
    source: Source

    def kept_cycles(self, cell_rows: int, int8: bool = False) -> float:
        """Cycles per kept MAC for cells of this height."""
        table = (self.cycles_per_kept_mac_int8 or {}) if int8 else self.cycles_per_kept_mac
        for rows, cycles in table.items():
            if rows == str(cell_rows):
                return cycles
        raise UserInputError(
            f"the latency model of {self.isa} has no coefficient for {'int8' if int8 else 'fp32'} cells of "
            f"{cell_rows} rows; it has {', '.join(table) or 'none'}."
        )

    @model_validator(mode="after")
    def _far_needs_near(self) -> LatencyCoefficients:
        if (self.cycles_per_far_mac or self.cycles_per_far_mac_int8) and self.near_cache_bytes is None:
            raise ValueError("cycles_per_far_mac needs near_cache_bytes, the size of the nearest cache")
        return self

    def far_cycles(self, cell_rows: int, int8: bool = False) -> float:
        """Further cycles per kept MAC whose inputs are not in the nearest cache; 0 where none were measured."""
        table = (self.cycles_per_far_mac_int8 if int8 else self.cycles_per_far_mac) or {}
        return {int(rows): cycles for rows, cycles in table.items()}.get(cell_rows, 0.0)

    def few_cycles(self, cell_rows: int) -> tuple[float, float] | None:
        """Cycles per kept MAC and per kept weight of a few tokens; none where they were not measured apart."""
        macs, weights = (
            {int(rows): cycles for rows, cycles in (table or {}).items()}
            for table in (self.cycles_per_kept_mac_few, self.cycles_per_kept_weight_few)
        )
        return (macs[cell_rows], weights.get(cell_rows, 0.0)) if cell_rows in macs else None

    def speedup(self, threads: int) -> float:
        """Speed of ``threads`` threads relative to one."""
        return 1.0 + (threads - 1) * self.thread_efficiency


class Cluster(_Record):
    """Cores that share a clock.

    A step's power is its measured `active_mw`, or ``k_uw_per_mhz_v2 * freq_mhz * V^2`` per core where it is absent.
    `cpus` are the numbers that Linux gives the cores.
    """

    name: Name
    cores: Annotated[int, Field(ge=1, le=1024)]
    cpus: Annotated[tuple[Annotated[int, Field(ge=0, le=65535)], ...] | None, Field(strict=False)] = None
    k_uw_per_mhz_v2: Positive | None = None
    steps_source: Source
    power_source: Source
    steps: Annotated[tuple[FrequencyStep, ...], Field(strict=False, min_length=1)]
    latency: Annotated[tuple[LatencyCoefficients, ...], Field(strict=False, min_length=1)]

    @model_validator(mode="after")
    def _steps_are_usable(self) -> Cluster:
        frequencies = [step.freq_mhz for step in self.steps]
        if any(low >= high for low, high in itertools.pairwise(frequencies)):
            raise ValueError("steps must be sorted by freq_mhz, each frequency once")
        for step in self.steps:
            if step.active_mw is None and (step.voltage_mv is None or self.k_uw_per_mhz_v2 is None):
                raise ValueError(
                    f"the step of {step.freq_mhz:g} MHz has no power; give active_mw, "
                    "or voltage_mv and the cluster's k_uw_per_mhz_v2"
                )
        if self.cpus is not None and len(set(self.cpus)) != self.cores:
            raise ValueError(f"cpus must name {self.cores} different CPUs, one for each core")
        names = [entry.isa for entry in self.latency]
        if len(set(names)) != len(names):
            raise ValueError("two latency entries have the same isa; keep one")
        return self

    def step(self, freq_mhz: float) -> FrequencyStep:
        """The step at exactly this frequency."""
        for step in self.steps:
            if step.freq_mhz == freq_mhz:
                return step
        known = ", ".join(f"{step.freq_mhz:g}" for step in self.steps)
        raise UserInputError(f"cluster {self.name} has no step of {freq_mhz:g} MHz; its steps are {known}.")

    def active_mw(self, freq_mhz: float) -> float:
        """Power of one busy core above idle at a step, in mW."""
        step = self.step(freq_mhz)
        if step.active_mw is not None:
            return step.active_mw
        return (self.k_uw_per_mhz_v2 or 0.0) * freq_mhz * ((step.voltage_mv or 0.0) / 1000) ** 2 / 1000

    def coefficients(self, isa: str | None = None) -> LatencyCoefficients:
        """The latency coefficients of an instruction set; the first of the profile where none is named."""
        if isa is None:
            return self.latency[0]
        for entry in self.latency:
            if entry.isa == isa:
                return entry
        known = ", ".join(entry.isa for entry in self.latency)
        raise UserInputError(f"cluster {self.name} has no latency model for {isa!r}; it has {known}.")

    @property
    def max_mhz(self) -> float:
        return self.steps[-1].freq_mhz


class Power(_Record):
    """Power that is drawn whatever the cores do: `idle_mw` by the processor, `board_mw` by everything else."""

    idle_mw: NonNegative
    board_mw: NonNegative
    source: Source


class Switching(_Record):
    """What a change of frequency or of level costs, and what it costs more to move to another cluster."""

    frequency_us: NonNegative
    frequency_uj: NonNegative
    level_us: NonNegative
    level_uj: NonNegative
    cluster_us: NonNegative = 0.0
    cluster_uj: NonNegative = 0.0
    source: Source


class Thermal(_Record):
    """Heat: the temperature that must not be passed, and where it is known how the device warms up.

    A constant power P (in W) ends at ``ambient_c + resistance_c_per_w * P``, approached with `time_constant_s`.
    """

    limit_c: Annotated[float, Field(gt=-50, lt=300, allow_inf_nan=False)]
    ambient_c: Annotated[float, Field(gt=-100, lt=100, allow_inf_nan=False)] = 25.0
    resistance_c_per_w: Positive | None = None
    time_constant_s: Positive | None = None
    source: Source

    @model_validator(mode="after")
    def _limit_is_above_ambient(self) -> Thermal:
        if self.limit_c <= self.ambient_c:
            raise ValueError("limit_c must be above ambient_c")
        if (self.resistance_c_per_w is None) != (self.time_constant_s is None):
            raise ValueError("give resistance_c_per_w and time_constant_s together, or neither")
        return self


class CpuIdentity(_Record):
    """The processor on which a profile was measured; `lavolta.devices.identity` reads the one it runs on.

    Attributes:
        architecture: as `uname -m` has it.
        parts: every kind of core, sorted: ``vendor:family:model`` on x86, ``implementer:part`` on Arm.
        model: its name in words, for messages only.
        instruction_sets: those of the engine that ran, best last.
    """

    architecture: Annotated[str, Field(min_length=1)]
    parts: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    model: str = ""
    instruction_sets: Annotated[tuple[str, ...], Field(strict=False)] = ()


class Battery(_Record):
    """A charge: `capacity_mwh`, or `capacity_mah` at `nominal_mv`, both counted down to the cut-off.

    With an internal resistance the cell also heats itself: it gives ``V I`` where the load takes ``V I - I^2 R``.
    A load whose terminal voltage ``V - I R`` would fall below `cutoff_mv` is refused.
    """

    capacity_mwh: Positive | None = None
    capacity_mah: Positive | None = None
    nominal_mv: Positive
    cutoff_mv: Positive | None = None
    internal_resistance_mohm: NonNegative = 0.0
    source: Source

    @model_validator(mode="after")
    def _capacity_is_given_once(self) -> Battery:
        if (self.capacity_mwh is None) == (self.capacity_mah is None):
            raise ValueError("give exactly one of capacity_mwh and capacity_mah")
        if self.cutoff_mv is not None and self.cutoff_mv >= self.nominal_mv:
            raise ValueError("cutoff_mv must be below nominal_mv")
        return self

    @property
    def energy_mwh(self) -> float:
        """Capacity in mWh."""
        if self.capacity_mwh is not None:
            return self.capacity_mwh
        return (self.capacity_mah or 0.0) * self.nominal_mv / 1000

    def current_ma(self, load_mw: float) -> float:
        """Current that a constant load draws, in mA: the smaller root of ``V I - I^2 R = P``.

        Raises:
            InfeasibleError: the battery cannot give this power, or not above its cut-off voltage.
        """
        volts, ohms, watts = self.nominal_mv / 1000, self.internal_resistance_mohm / 1000, load_mw / 1000
        discriminant = volts * volts - 4 * ohms * watts
        if discriminant < 0:
            raise InfeasibleError(
                f"the battery cannot give {load_mw:.0f} mW: its internal resistance allows at most "
                f"{1000 * volts * volts / (4 * ohms):.0f} mW; choose a lower frequency or fewer threads."
            )
        # Written so that it is exact for R = 0 and does not cancel for small R.
        amperes = 2 * watts / (volts + math.sqrt(discriminant))
        terminal_mv = 1000 * (volts - amperes * ohms)
        if self.cutoff_mv is not None and terminal_mv < self.cutoff_mv:
            raise InfeasibleError(
                f"a load of {load_mw:.0f} mW pulls the battery to {terminal_mv:.0f} mV, below its cut-off of "
                f"{self.cutoff_mv:.0f} mV; choose a lower frequency or fewer threads."
            )
        return 1000 * amperes

    def cell_mw(self, load_mw: float) -> float:
        """Power that the cell loses while the load draws ``load_mw``, in mW; the difference is heat in the cell."""
        if self.internal_resistance_mohm == 0 and self.cutoff_mv is None:
            return load_mw
        current_ma = self.current_ma(load_mw)
        return load_mw + (current_ma / 1000) ** 2 * self.internal_resistance_mohm


class DeviceProfile(_Record):
    """One device. `docs/reference/device-profile.md` explains every key; `lavolta.devices.load` reads one."""

    format: Literal[1]
    name: Name
    title: Annotated[str, Field(min_length=1)]
    default_cluster: Name | None = None
    power: Power
    switching: Switching
    battery: Battery
    clusters: Annotated[tuple[Cluster, ...], Field(strict=False, min_length=1)]
    thermal: Thermal | None = None
    cpu: CpuIdentity | None = None

    @field_validator("clusters")
    @classmethod
    def _clusters_differ(cls, clusters: tuple[Cluster, ...]) -> tuple[Cluster, ...]:
        names = [cluster.name for cluster in clusters]
        if len(set(names)) != len(names):
            raise ValueError("two clusters have the same name; rename one")
        cpus = [cpu for cluster in clusters for cpu in cluster.cpus or ()]
        if len(set(cpus)) != len(cpus):
            raise ValueError("a CPU belongs to two clusters; name it once")
        return clusters

    @model_validator(mode="after")
    def _default_exists(self) -> DeviceProfile:
        if self.default_cluster is not None and self.default_cluster not in {c.name for c in self.clusters}:
            raise ValueError(f"default_cluster {self.default_cluster!r} is not the name of a cluster")
        return self

    @property
    def cluster_names(self) -> tuple[str, ...]:
        """All clusters, the default one first."""
        home = self.cluster().name
        return (home, *(cluster.name for cluster in self.clusters if cluster.name != home))

    def cluster(self, name: str | None = None) -> Cluster:
        """A cluster by name; the profile's default (or its first) where none is named."""
        wanted = name or self.default_cluster or self.clusters[0].name
        for cluster in self.clusters:
            if cluster.name == wanted:
                return cluster
        known = ", ".join(cluster.name for cluster in self.clusters)
        raise UserInputError(f"device {self.name} has no cluster {wanted!r}; it has {known}.")
