"""Which clocks are worth mixing in a run: those on the lower convex hull of energy over time."""

from __future__ import annotations

from collections.abc import Iterable

from lavolta.runtime.scenario import Option


def time_energy_hull(options: Iterable[Option], idle_uw: int) -> list[Option]:
    """The lower convex hull of energy above idle over time, quickest first, as far as it falls.

    Every run that changes between some of the options on its way is on it or above.
    """

    def energy_fj(option: Option) -> int:
        return (option.cell_uw - idle_uw) * option.latency_ns

    hull: list[Option] = []
    for option in sorted(options, key=lambda o: (o.latency_ns, energy_fj(o), o.choice)):
        if hull and energy_fj(option) >= energy_fj(hull[-1]):
            continue
        while len(hull) > 1:
            (left, middle), point = hull[-2:], option
            rise = (energy_fj(middle) - energy_fj(left)) * (point.latency_ns - left.latency_ns)
            if rise < (energy_fj(point) - energy_fj(left)) * (middle.latency_ns - left.latency_ns):
                break
            hull.pop()
        hull.append(option)
    return hull
