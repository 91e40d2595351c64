"""Who turns the dial: the three policies of RT3's motivation, and ours, behind one small protocol.

E1, E2 and E3 are the rows of RT3's motivation table (papers sheet of RT3, 2.2, unverified: medium): no reconfiguration,
hardware only, hardware and software. Results carry `words`, because an improvement means nothing without its baseline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lavolta.errors import UserInputError
from lavolta.runtime.governor_policy import LavoltaPolicy as LavoltaPolicy
from lavolta.runtime.policy import Policy as Policy
from lavolta.runtime.policy import State as State
from lavolta.runtime.scenario import Choice, LevelWork, Scenario

PAPER_MODES = (1.0, 5 / 7, 4 / 7)
"""RT3's run-time levels l6, l4, l3 (1400, 1000, 800 MHz) as shares of the highest frequency."""


@dataclass(frozen=True)
class ModesPolicy:
    """One fixed choice per mode; modes divide the charge in equal shares, the first while it is full."""

    name: str
    words: str
    modes: tuple[Choice, ...]
    breaks_ns: tuple[int, ...] | None = ()

    def choose(self, state: State) -> Choice:
        count = len(self.modes)
        for index, mode in enumerate(self.modes[:-1]):
            if state.charge_fj * count > state.capacity_fj * (count - 1 - index):
                return mode
        return self.modes[-1]


def no_reconfiguration(scenario: Scenario, level: str | None = None) -> ModesPolicy:
    """E1: the highest frequency and one level for the whole charge.

    Args:
        level: the densest level that meets the deadline there, where not named (the densest of all where none does).
    """
    top = scenario.used_cluster.max_mhz
    chosen = _fixed_level(scenario, level)
    words = f"no reconfiguration (E1): {top:g} MHz and level {chosen.name} for the whole charge"
    return ModesPolicy("no-reconfiguration", words, (_choice(scenario, top, chosen),))


def hardware_only(scenario: Scenario, level: str | None = None) -> ModesPolicy:
    """E2: the frequency falls with the charge in the paper's modes, the level stays; so deadlines are missed.

    Args:
        level: that of `no_reconfiguration` where not named.
    """
    chosen = _fixed_level(scenario, level)
    modes = tuple(_choice(scenario, freq, chosen) for freq in mode_frequencies(scenario))
    words = f"hardware only (E2): level {chosen.name} throughout, {_mode_words(modes)}"
    return ModesPolicy("hardware-only", words, modes)


def rt3(scenario: Scenario, margin: float = 0.0) -> ModesPolicy:
    """E3: the frequency falls with the charge in the paper's modes, and each mode has the densest level that meets the
    deadline there. A mode that no level can meet uses the lowest frequency above it at which one does.

    Args:
        margin: share by which a run may take longer than predicted (the paper's fixed mapping has none).

    Raises:
        InfeasibleError: no level meets the deadline at any frequency.
    """
    fitting = [
        option
        for option in scenario.fitting(margin) or scenario.fitting(margin, with_switch=False)
        if (option.choice.threads, option.choice.cluster) == (scenario.threads[0], scenario.used_cluster.name)
    ]
    if not fitting:
        raise scenario.refuse(
            f" with a margin of {100 * margin:g} %; lower it or allow a longer deadline" if margin else ""
        )
    order = {level.name: level.work.kept_macs for level in scenario.levels}
    modes = []
    for freq in mode_frequencies(scenario):
        usable = [option for option in fitting if option.choice.freq_mhz >= freq] or [
            max(fitting, key=lambda option: option.choice.freq_mhz)
        ]
        clock = min(option.choice.freq_mhz for option in usable)
        modes.append(
            max(
                (option.choice for option in usable if option.choice.freq_mhz == clock),
                key=lambda choice: order[choice.level],
            )
        )
    words = f"hardware and software (E3, RT3): {_mode_words(tuple(modes))}"
    return ModesPolicy("rt3", words, tuple(modes))


def mode_frequencies(scenario: Scenario) -> list[float]:
    """The paper's three modes on this device: the steps closest to 1, 5/7, 4/7 of the highest, each once, falling."""
    steps = [step.freq_mhz for step in scenario.used_cluster.steps]
    modes = [min(steps, key=lambda step: abs(step - share * steps[-1])) for share in PAPER_MODES]
    return sorted(set(modes), reverse=True)


def _fixed_level(scenario: Scenario, name: str | None) -> LevelWork:
    densest_first = sorted(scenario.levels, key=lambda level: -level.work.kept_macs)
    if name is None:
        top = scenario.used_cluster.max_mhz
        meeting = [
            level
            for level in densest_first
            if scenario.option(_choice(scenario, top, level)).latency_ns <= scenario.limit_ns
        ]
        return (meeting or densest_first)[0]
    for level in densest_first:
        if level.name == name:
            return level
    raise UserInputError(f"unknown level {name!r}; the levels are {', '.join(level.name for level in densest_first)}.")


def _choice(scenario: Scenario, freq_mhz: float, level: LevelWork) -> Choice:
    return Choice(freq_mhz, scenario.threads[0], level.name, scenario.used_cluster.name)


def _mode_words(modes: tuple[Choice, ...]) -> str:
    count = len(modes)
    parts = []
    for index, mode in enumerate(modes):
        floor = 100 * (count - 1 - index) / count
        parts.append(f"{mode.freq_mhz:g} MHz with level {mode.level} above {floor:.0f} % of the charge")
    return "; ".join(parts)


POLICIES: dict[str, Callable[[Scenario], Policy]] = {
    "no-reconfiguration": no_reconfiguration,
    "hardware-only": hardware_only,
    "rt3": rt3,
    "lavolta": LavoltaPolicy,
}
"""Name to policy with its defaults; the order is that of reports."""


def make_policy(name: str, scenario: Scenario) -> Policy:
    """A policy by name, with its defaults."""
    if name not in POLICIES:
        raise UserInputError(f"unknown policy {name!r}; choose one of {', '.join(POLICIES)}.")
    return POLICIES[name](scenario)
