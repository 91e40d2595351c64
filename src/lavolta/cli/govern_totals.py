"""Sums over the answers of `lavolta govern`: what a stream without end leaves behind must not grow with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lavolta.runtime.governor_loop import Served


@dataclass
class Group:
    """The answers at one level on one cluster: counts, and sums of times and energies."""

    low_mhz: float = float("inf")
    high_mhz: float = 0.0
    answers: int = 0
    raised: int = 0
    late: int = 0
    run_ms: float = 0.0
    p99_ms: float = 0.0
    energy_mj: float = 0.0

    def add(self, answer: Served) -> None:
        self.low_mhz, self.high_mhz = min(self.low_mhz, answer.freq_mhz), max(self.high_mhz, answer.freq_mhz)
        self.answers += 1
        self.raised += answer.raised_mhz is not None
        self.late += not answer.in_time
        self.run_ms += answer.run_ms
        self.p99_ms += answer.p99_ms
        self.energy_mj += answer.energy_mj


@dataclass
class Totals:
    """All answers.

    Attributes:
        groups: by level and cluster, in the order of their first answers.
    """

    groups: dict[tuple[str, str], Group] = field(default_factory=dict)
    cut_short: int = 0
    score: float = 0.0
    worst_ms: float = 0.0
    degree: str = ""
    charge_share: float | None = None

    def add(self, answer: Served) -> None:
        """One answer more."""
        self.groups.setdefault((answer.level, answer.cluster), Group()).add(answer)
        self.cut_short += not answer.kept_level
        self.score += answer.score
        self.worst_ms = max(self.worst_ms, answer.response_ms)
        self.degree, self.charge_share = answer.degree, answer.charge_share

    def summary(self) -> dict[str, Any]:
        """Counts, means, and how the device was at the last answer."""
        groups = self.groups.values()
        count = sum(group.answers for group in groups)
        if not count:
            return {"requests": 0}
        levels: dict[str, int] = {}
        for (level, _), group in self.groups.items():
            levels[level] = levels.get(level, 0) + group.answers
        return {
            "requests": count,
            "misses": sum(group.late for group in groups),
            "cut_short": self.cut_short,
            "mean_score": self.score / count,
            "mean_run_ms": sum(group.run_ms for group in groups) / count,
            "worst_response_ms": self.worst_ms,
            "predicted_mj_per_answer": sum(group.energy_mj for group in groups) / count,
            "levels": levels,
            "degree": self.degree,
            "charge_share": self.charge_share,
        }
