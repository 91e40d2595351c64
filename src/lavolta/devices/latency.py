"""Predicted latency of one inference, and its inverse: how sparse a model must be for a deadline.

With ``s = 1 + (threads - 1) * thread_efficiency`` and the coefficients of the profile::

    t = (cycles_fixed + (cycles_per_kept_mac[cell_rows] * fp32_macs + cycles_per_kept_mac_int8[cell_rows] * int8_macs
                         + cycles_per_rest_mac * rest_macs) / s) / f
        + streamed_bytes / bandwidth + fixed

where ``fp32_macs + int8_macs`` are the kept multiply-accumulates.

The memory and fixed terms do not scale with the clock: pure 1/f scaling is known to fail (papers sheet of RT3, 1.5).
The form is ours; how RT3 predicted latency is not known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from lavolta.devices.profile import DeviceProfile, LatencyCoefficients
from lavolta.devices.work import Work
from lavolta.errors import InfeasibleError, UserInputError


def coefficients_ms(coefficients: LatencyCoefficients, work: Work, freq_mhz: float, threads: int = 1) -> float:
    """Predicted latency in ms from bare coefficients; `latency_ms` looks them up in a profile."""
    speedup = coefficients.speedup(threads)
    parallel = coefficients.cycles_per_rest_mac * work.rest_macs
    for macs, int8 in ((work.kept_macs - work.int8_macs, False), (work.int8_macs, True)):
        if macs > 0:
            parallel += coefficients.kept_cycles(work.cell_rows, int8) * macs
    cycles = coefficients.cycles_fixed + parallel / speedup
    bandwidth = coefficients.bandwidth_gb_s
    memory_ms = 0.0 if bandwidth is None else work.streamed_bytes / (bandwidth * 1e6)
    return cycles / (freq_mhz * 1e3) + memory_ms + coefficients.fixed_us / 1e3


def latency_ms(
    profile: DeviceProfile,
    work: Work,
    freq_mhz: float,
    threads: int = 1,
    isa: str | None = None,
    cluster: str | None = None,
) -> float:
    """Predicted latency of one inference in ms.

    Args:
        freq_mhz: any clock, also between the steps of the profile (a governor may only follow the system's choice).
        threads: 1 to the cores of the cluster.
        isa: instruction set; the first of the cluster where none is named.
        cluster: the profile's default where none is named.

    Raises:
        UserInputError: a clock that is not positive, too many threads, or an unknown isa, cluster or cell height.
    """
    return coefficients_ms(_checked(profile, freq_mhz, threads, isa, cluster), work, freq_mhz, threads)


def max_kept_share(
    profile: DeviceProfile,
    dense: Work,
    deadline_ms: float,
    freq_mhz: float,
    threads: int = 1,
    isa: str | None = None,
    cluster: str | None = None,
) -> float:
    """The largest share of the dense kept work (0 to 1) that meets a deadline at a clock.

    This is the "smallest sparsity that meets T at f" of RT3's search-space generation: sparsity is 1 minus the share.

    Raises:
        InfeasibleError: even with nothing kept the rest is too slow; the message names what would be enough.
    """
    if not (deadline_ms > 0 and math.isfinite(deadline_ms)):
        raise UserInputError(f"a deadline of {deadline_ms} ms is not a positive number of milliseconds.")
    used = profile.cluster(cluster)
    empty_ms = latency_ms(profile, dense.scaled(0.0), freq_mhz, threads, isa, cluster)
    dense_ms = latency_ms(profile, dense, freq_mhz, threads, isa, cluster)
    if empty_ms > deadline_ms:
        fastest_ms = latency_ms(profile, dense.scaled(0.0), used.max_mhz, used.cores, isa, cluster)
        hint = (
            f"at {used.max_mhz:g} MHz with {used.cores} threads it is {fastest_ms:.3g} ms"
            if fastest_ms < empty_ms
            else "no faster setting exists"
        )
        raise InfeasibleError(
            f"no sparsity meets {deadline_ms:g} ms on {profile.name} at {freq_mhz:g} MHz with {threads} thread(s): "
            f"attention, norms and head alone take {empty_ms:.3g} ms ({hint}); allow a longer deadline or fewer tokens."
        )
    if dense_ms <= deadline_ms:
        return 1.0
    return (deadline_ms - empty_ms) / (dense_ms - empty_ms)


def require_feasible(
    profile: DeviceProfile,
    levels: Mapping[str, Work],
    deadline_ms: float,
    threads: int = 1,
    isa: str | None = None,
    cluster: str | None = None,
) -> None:
    """Check that at least one level meets the deadline at the highest clock.

    Raises:
        InfeasibleError: none does; the message names the closest level, the deadline it would meet, and the sparsity
            (relative to that level) that would meet this one.
    """
    if not levels:
        raise UserInputError("there is no level to check; give at least one.")
    used = profile.cluster(cluster)
    times = {name: latency_ms(profile, work, used.max_mhz, threads, isa, cluster) for name, work in levels.items()}
    closest = min(times, key=lambda name: times[name])
    if times[closest] <= deadline_ms:
        return
    try:
        share = max_kept_share(profile, levels[closest], deadline_ms, used.max_mhz, threads, isa, cluster)
        cut = f"a level that keeps at most {100 * share:.3g} % of what {closest} keeps"
    except InfeasibleError:
        cut = "fewer tokens (its dense rest alone is too slow)"
    more = f", more than {threads} thread(s)" if threads < used.cores else ""
    raise InfeasibleError(
        f"no level meets {deadline_ms:g} ms on {profile.name}: the closest is {closest} at {used.max_mhz:g} MHz with "
        f"{threads} thread(s), {times[closest]:.4g} ms; allow {math.ceil(times[closest])} ms{more}, or make {cut}."
    )


def _checked(
    profile: DeviceProfile, freq_mhz: float, threads: int, isa: str | None, cluster: str | None
) -> LatencyCoefficients:
    used = profile.cluster(cluster)
    if not (freq_mhz > 0 and math.isfinite(freq_mhz)):
        raise UserInputError(
            f"a clock of {freq_mhz} MHz is not positive; the lowest step is {used.steps[0].freq_mhz:g}."
        )
    if not 1 <= threads <= used.cores:
        raise UserInputError(f"{threads} threads do not fit cluster {used.name}; give 1 to {used.cores}.")
    return used.coefficients(isa)
