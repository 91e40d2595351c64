"""Predicted latency of one inference, and its inverse: how sparse a model must be for a deadline.

With ``s = 1 + (threads - 1) * thread_efficiency`` and the coefficients of the profile::

    t = (cycles_fixed + (p * (kept + far + cycles_per_rest_mac * rest_macs) + cells + bands) / s) / f
        + streamed_bytes / bandwidth + fixed

    kept     = cycles_per_kept_mac[cell_rows] * kept_macs             sums over fp32 and int8 weights, each with
    far      = cycles_per_far_mac[cell_rows] * far_macs               coefficients of its own
    cells    = cycles_per_cell * kept_macs / (cell_rows * tokens)
    bands    = cycles_per_band * visits of bands
    p        = tokens rounded up to tokens_per_register, / tokens

At most `FEW_TOKENS` tokens, and no more than cells have rows, run fp32 kernels of their own, which read a weight once
for all tokens: where a profile has ``few`` for them, ``few[cell_rows] * kept_macs + few_weight[cell_rows] * kept_macs /
tokens`` stands in the place of kept, far, cells and bands, with p = 1. int8 kernels compute groups of tokens always.

``far_macs`` are those whose inputs do not fit the nearest cache: of each layer, the part of its inputs (of as many
tokens as the kernels take at once) beyond ``near_cache_bytes``. Terms that a profile does not have are 0.

The memory and fixed terms do not scale with the clock: pure 1/f scaling is known to fail (papers sheet of RT3, 1.5).
The form is ours; how RT3 predicted latency is not known. It is linear in the kept work, so its inverse is exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from lavolta.devices.profile import DeviceProfile, LatencyCoefficients
from lavolta.devices.work import Work
from lavolta.errors import InfeasibleError, UserInputError

TOKENS_AT_ONCE = 48
"""Tokens of the widest register tile of the kernels: an input column is read for so many tokens before the next one."""


FEW_TOKENS = 4
"""Most tokens that the fp32 kernels for a few tokens take."""


def are_few(work: Work) -> bool:
    """Whether the tokens are few enough for kernels of their own."""
    return work.tokens <= min(FEW_TOKENS, work.cell_rows)


def coefficients_ms(coefficients: LatencyCoefficients, work: Work, freq_mhz: float, threads: int = 1) -> float:
    """Predicted latency in ms from bare coefficients; `latency_ms` looks them up in a profile."""
    parallel = coefficients.cycles_per_rest_mac * work.rest_macs
    others = 0.0
    for int8, macs in ((False, work.kept_macs - work.int8_macs), (True, work.int8_macs)):
        # Bands are visited whatever they keep: time is linear in the kept work down to nothing.
        if macs <= 0 and not any(part.int8 == int8 for part in work.linears):
            continue
        few = coefficients.few_cycles(work.cell_rows) if are_few(work) and not int8 else None
        if few is not None:
            others += few[0] * macs + few[1] * macs / max(work.tokens, 1)
            continue
        parallel += coefficients.kept_cycles(work.cell_rows, int8) * macs
        per_band = coefficients.cycles_per_band_int8 if int8 else coefficients.cycles_per_band
        others += per_band * band_visits(work, int8)
        far = coefficients.far_cycles(work.cell_rows, int8)
        if far and coefficients.near_cache_bytes is not None:
            parallel += far * far_macs(work, int8, coefficients.near_cache_bytes, coefficients.tokens_per_register)
        per_cell = coefficients.cycles_per_cell_int8 if int8 else coefficients.cycles_per_cell
        others += per_cell * macs / (work.cell_rows * max(work.tokens, 1))
    parallel = parallel * padding(work.tokens, coefficients.tokens_per_register) + others
    cycles = coefficients.cycles_fixed + parallel / coefficients.speedup(threads)
    bandwidth = coefficients.bandwidth_gb_s
    memory_ms = 0.0 if bandwidth is None else work.streamed_bytes / (bandwidth * 1e6)
    return cycles / (freq_mhz * 1e3) + memory_ms + coefficients.fixed_us / 1e3


def padding(tokens: int, tokens_per_register: int) -> float:
    """What the last, partly filled group of tokens costs: computed tokens per token, 1 or more."""
    if tokens < 1:
        return 1.0
    return math.ceil(tokens / tokens_per_register) * tokens_per_register / tokens


def far_macs(work: Work, int8: bool, near_cache_bytes: int, tokens_per_register: int) -> float:
    """Kept multiply-accumulates of one precision whose inputs do not fit the nearest cache."""
    tokens = math.ceil(work.tokens / tokens_per_register) * tokens_per_register
    token_bytes = min(tokens, TOKENS_AT_ONCE) * (1 if int8 else 4)
    total = 0.0
    for part in work.linears:
        if part.int8 == int8 and part.in_features * token_bytes > near_cache_bytes:
            total += part.kept_macs * (1.0 - near_cache_bytes / (part.in_features * token_bytes))
    return total


def band_visits(work: Work, int8: bool) -> float:
    """How often a band of one precision is begun: each once for every `TOKENS_AT_ONCE` tokens."""
    passes = math.ceil(work.tokens / TOKENS_AT_ONCE)
    return float(sum(-(-part.out_features // work.cell_rows) for part in work.linears if part.int8 == int8) * passes)


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
