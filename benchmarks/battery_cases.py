"""One device, model and traffic of the battery benchmark, and everybody who competes on it."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from battery_models import DENSE, Subject
from lavolta.devices import Accounting, DeviceProfile, latency_ms
from lavolta.devices.charge import to_fj, to_mwh
from lavolta.errors import InfeasibleError
from lavolta.runtime import traffic
from lavolta.runtime.governor import Goal
from lavolta.runtime.governor_policy import GovernorPolicy
from lavolta.runtime.policies import hardware_only, no_reconfiguration, rt3
from lavolta.runtime.policy import Policy
from lavolta.runtime.scenario import Choice, Scenario
from lavolta.runtime.simulation import SimulationResult, simulate
from lavolta.runtime.stock_policies import STOCK
from lavolta.runtime.ztt_policy import ZttLikePolicy

NOISE = 0.2
PAPER = "periodic, deadline just held"
DYNAMIC = "dynamic power alone"
TRAFFIC = ("periodic", "poisson", "bursty", "day")
OURS = "lavolta"
BASELINE = "no-reconfiguration"
ROOM = 1.02
"""Share of a deadline beyond the slowest dense run: a change of clock and level has to fit too."""
PAPER_ROOM = 1.01
"""The same where the deadline is just held: that of the experiments' battery tables."""
IRREGULAR_PERIOD = 2.0
"""Mean time between irregular requests, in deadlines."""
MOST_OVER_DENSE = 200
"""Requests that are ready for every one that the dense model answers with a charge: more than any policy answers."""


class Case:
    """One device, model, traffic and seed; a charge just large enough for ``requests`` dense runs."""

    def __init__(
        self, profile: DeviceProfile, subject: Subject, kind: str, seed: int, requests: int, accounting: Accounting
    ) -> None:
        self.subject = subject
        if kind == DYNAMIC:
            # The power model that RT3 is believed to use: no idle power.
            power = profile.power.model_copy(update={"idle_mw": 0.0})
            profile, kind = profile.model_copy(update={"power": power}), PAPER
        top = profile.cluster().max_mhz
        dense_ms = latency_ms(profile, subject.levels[0].work, top)
        # What the slowest dense run at the top clock needs, so that the baseline keeps its deadlines too; or, as RT3 is
        # understood, what it needs by prediction: then noise makes the baseline late, and only its answers count.
        deadline_ms = dense_ms * (PAPER_ROOM if kind == PAPER else (1 + NOISE) * ROOM)
        period_ms, gap_ms = deadline_ms, None
        if kind in TRAFFIC[1:]:
            quickest = min(latency_ms(profile, level.work, top) for level in subject.levels) * (1 + NOISE)
            period_ms = IRREGULAR_PERIOD * deadline_ms
            gap_ms = max(deadline_ms / 2, quickest * ROOM)
        scenario = Scenario(
            profile,
            subject.levels,
            deadline_ms,
            period_ms,
            clusters=profile.cluster_names,
            accounting=accounting,
            gap_ms=gap_ms,
        )
        dense_fj = scenario.period_fj(scenario.option(Choice(top, 1, DENSE, scenario.used_cluster.name)))
        self.full_share = to_fj(profile.battery.energy_mwh) / (requests * dense_fj)
        self.scenario = _with_charge(scenario, requests * dense_fj)
        rng = np.random.default_rng(seed)
        self.noise = traffic.uniform_noise(NOISE, 4999, rng)
        self.stress = traffic.lognormal_noise(NOISE, 4999, rng)
        count = requests * MOST_OVER_DENSE
        self.arrivals: list[float] | None = None
        if kind == "poisson":
            self.arrivals = traffic.poisson(period_ms, gap_ms or 0.0, count, rng)
        elif kind == "bursty":
            self.arrivals = traffic.bursty(period_ms, gap_ms or 0.0, count, rng)
        elif kind == "day":
            # A day of 500 mean periods: its shape, compressed in time as the charge is.
            self.arrivals = traffic.day(period_ms, gap_ms or 0.0, count // 500 + 1, rng, day_ms=500 * period_ms)

    def run(self, policy: Policy, stress: bool = False, scenario: Scenario | None = None) -> SimulationResult:
        noise = self.stress if stress else self.noise
        result = simulate(scenario or self.scenario, policy, arrivals_ms=self.arrivals, slowdowns=noise)
        if result.ended != "charge":
            raise RuntimeError(f"{policy.name} outlived its traffic; give the case more requests")
        return result


def _with_charge(scenario: Scenario, energy_fj: float) -> Scenario:
    battery = scenario.profile.battery.model_copy(
        update={"capacity_mah": None, "capacity_mwh": to_mwh(round(energy_fj))}
    )
    return replace(scenario, profile=scenario.profile.model_copy(update={"battery": battery}))


def policies(case: Case, seed: int) -> dict[str, Callable[[], Policy]]:
    """Everybody who competes. A fixed level is the dense model or the sparsest: of all levels it lasts longest. The
    kernel's governors and the zTT-like policy get every cluster in turn.
    """
    scenario, sparsest = case.scenario, case.subject.sparsest
    found: dict[str, Callable[[], Policy]] = {
        BASELINE: lambda: no_reconfiguration(scenario, DENSE),
        "hardware-only": lambda: hardware_only(scenario, DENSE),
        "rt3": lambda: rt3(scenario),
        "rt3+margin": lambda: rt3(scenario, NOISE),
        OURS: lambda: GovernorPolicy(scenario, Goal(margin=NOISE)),
    }
    names = scenario.clusters
    for level, cluster in itertools.product((DENSE, sparsest), names):
        place = f" on {cluster}" if len(names) > 1 else ""
        for kind in STOCK:
            found[f"{kind.governor}:{level}{place}"] = functools.partial(kind, scenario, level, cluster=cluster)
        found[f"ztt-like:{level}{place}"] = functools.partial(ZttLikePolicy, scenario, level, seed, cluster)
    return found


def one_cluster(case: Case) -> dict[str, SimulationResult]:
    """Ours with each cluster alone, those on which it keeps its deadlines; the default one first."""
    found = {}
    for name in case.scenario.clusters:
        alone = replace(case.scenario, clusters=(name,))
        with contextlib.suppress(InfeasibleError):
            found[name] = case.run(GovernorPolicy(alone, Goal(margin=NOISE)), scenario=alone)
    return found
