"""The chips of freqbench whose measurements show power: core types and counts, which its files do not state."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CoreType:
    """A core.

    Args:
        title: as its maker calls it.
        macs_per_cycle: fp32 multiply-accumulates per cycle: NEON lanes times NEON pipes.
        dot: whether it has the int8 dot-product instruction.
    """

    title: str
    macs_per_cycle: int
    dot: bool


@dataclass(frozen=True)
class Part:
    """A cluster of a chip.

    Args:
        cpu: the CPU that freqbench measured, by which its rows name the cluster.
        name: name of the cluster in the profile.
        cores: how many it has; Linux numbers them on from the cluster before.
    """

    cpu: int
    name: str
    core: CoreType
    cores: int


@dataclass(frozen=True)
class Chip:
    """One SoC. The default cluster is the last but the prime core: the fast cores that a phone uses for long.

    Args:
        board_measured: whether freqbench's idle readings show the whole device.
    """

    soc: str
    title: str
    parts: tuple[Part, ...]
    bandwidth_gb_s: float
    board_measured: bool = True

    @property
    def default(self) -> str:
        return [part.name for part in self.parts[:2] if not part.name.endswith("-slow")][-1]


A15 = CoreType("Cortex-A15", 4, False)
A53 = CoreType("Cortex-A53", 4, False)
A73 = CoreType("Cortex-A73", 4, False)
KRYO = CoreType("Kryo", 8, False)
KRYO_A55 = CoreType("Kryo Silver (Cortex-A55)", 4, False)
KRYO_A75 = CoreType("Kryo Gold (Cortex-A75)", 8, False)
A55 = CoreType("Cortex-A55", 4, True)
A76 = CoreType("Cortex-A76", 8, True)
A77 = CoreType("Cortex-A77", 8, True)
A78 = CoreType("Cortex-A78", 8, True)
X1 = CoreType("Cortex-X1", 16, True)
A510 = CoreType("Cortex-A510", 4, True)
A715 = CoreType("Cortex-A715", 8, True)
X3 = CoreType("Cortex-X3", 16, True)
A520 = CoreType("Cortex-A520", 4, True)
A720 = CoreType("Cortex-A720", 8, True)
X4 = CoreType("Cortex-X4", 16, True)


def _two(small: CoreType, small_cores: int, big: CoreType, big_cores: int, names: tuple[str, str]) -> tuple[Part, ...]:
    return Part(1, names[0], small, small_cores), Part(small_cores, names[1], big, big_cores)


def _twin_a53(names: tuple[str, str]) -> tuple[Part, ...]:
    return _two(A53, 4, A53, 4, names)


def _a53_a73(small: int, big: int) -> tuple[Part, ...]:
    return _two(A53, small, A73, big, ("cortex-a53", "cortex-a73"))


def _a55(small: int, core: CoreType, big: int) -> tuple[Part, ...]:
    return _two(A55, small, core, big, ("cortex-a55", core.title.lower()))


def _kryo_a75(generation: int, small: int, big: int) -> tuple[Part, ...]:
    return _two(KRYO_A55, small, KRYO_A75, big, (f"kryo-{generation}-silver", f"kryo-{generation}-gold"))


def _three(small: CoreType, small_cores: int, big: CoreType, big_cores: int, prime: CoreType) -> tuple[Part, ...]:
    suffix = "-prime" if prime == big else ""
    return (
        Part(1, small.title.lower(), small, small_cores),
        Part(small_cores, big.title.lower(), big, big_cores),
        Part(small_cores + big_cores, prime.title.lower() + suffix, prime, 1),
    )


# The Tensors' idle readings are near zero (power was taken from per-rail meters), and those of the Exynos 5250 scatter
# between 2 and 650 mW: they say nothing about the board.
CHIPS = (
    Chip("exynos5250", "Samsung Exynos 5250", (Part(1, "cortex-a15", A15, 2),), 5.0, board_measured=False),
    Chip(
        "exynos7880",
        "Samsung Exynos 7880",
        (Part(1, "cortex-a53-0", A53, 4), Part(5, "cortex-a53-1", A53, 4)),
        3.0,
    ),
    Chip("exynos7904", "Samsung Exynos 7904", _a53_a73(6, 2), 4.0),
    Chip("exynos9611", "Samsung Exynos 9611", _a53_a73(4, 4), 6.0),
    Chip("gs101", "Google Tensor (gs101)", (*_a55(4, A76, 2), Part(6, "cortex-x1", X1, 2)), 10.0, False),
    Chip("gs201", "Google Tensor G2 (gs201)", (*_a55(4, A78, 2), Part(6, "cortex-x1", X1, 2)), 10.0, False),
    Chip("msm8917", "Qualcomm Snapdragon 425 (msm8917)", (Part(1, "cortex-a53", A53, 4),), 3.0),
    Chip("msm8940", "Qualcomm Snapdragon 435 (msm8940)", _twin_a53(("cortex-a53-fast", "cortex-a53-slow")), 3.0),
    Chip("msm8953", "Qualcomm Snapdragon 625 (msm8953)", (Part(1, "cortex-a53", A53, 8),), 3.0),
    Chip("msm8996", "Qualcomm Snapdragon 820 (msm8996)", _two(KRYO, 2, KRYO, 2, ("kryo-silver", "kryo-gold")), 8.0),
    Chip("msm8998", "Qualcomm Snapdragon 835 (msm8998)", _a53_a73(4, 4), 8.0),
    Chip("mt6853t", "MediaTek Dimensity 800U (mt6853t)", _a55(6, A76, 2), 6.0),
    Chip("sdm439", "Qualcomm Snapdragon 439 (sdm439)", _twin_a53(("cortex-a53-fast", "cortex-a53-slow")), 3.0),
    Chip("sdm630", "Qualcomm Snapdragon 630 (sdm630)", _twin_a53(("cortex-a53-fast", "cortex-a53-slow")), 4.0),
    Chip("sdm632", "Qualcomm Snapdragon 632 (sdm632)", _a53_a73(4, 4), 4.0),
    Chip("sdm636", "Qualcomm Snapdragon 636 (sdm636)", _a53_a73(4, 4), 5.0),
    Chip("sdm660", "Qualcomm Snapdragon 660 (sdm660)", _a53_a73(4, 4), 6.0),
    Chip("sdm670", "Qualcomm Snapdragon 670 (sdm670)", _kryo_a75(360, 6, 2), 6.0),
    Chip("sdm710", "Qualcomm Snapdragon 710 (sdm710)", _kryo_a75(360, 6, 2), 6.0),
    Chip("sdm712", "Qualcomm Snapdragon 712 (sdm712)", _kryo_a75(360, 6, 2), 6.0),
    Chip("sdm845", "Qualcomm Snapdragon 845 (sdm845)", _kryo_a75(385, 4, 4), 8.0),
    Chip("sm6115", "Qualcomm Snapdragon 662 (sm6115)", _a53_a73(4, 4), 5.0),
    Chip("sm6125", "Qualcomm Snapdragon 665 (sm6125)", _a53_a73(4, 4), 5.0),
    Chip("sm6150", "Qualcomm Snapdragon 675 (sm6150)", _a55(6, A76, 2), 6.0),
    Chip("sm6150ac", "Qualcomm Snapdragon 678 (sm6150ac)", _a55(6, A76, 2), 6.0),
    Chip("sm7125", "Qualcomm Snapdragon 720G (sm7125)", _a55(6, A76, 2), 6.0),
    Chip("sm7150", "Qualcomm Snapdragon 730 (sm7150)", _a55(6, A76, 2), 6.0),
    Chip("sm7150ab", "Qualcomm Snapdragon 730G (sm7150ab)", _a55(6, A76, 2), 6.0),
    Chip("sm7150ac", "Qualcomm Snapdragon 732G (sm7150ac)", _a55(6, A76, 2), 6.0),
    Chip("sm7225", "Qualcomm Snapdragon 750G (sm7225)", _a55(6, A77, 2), 6.0),
    Chip("sm7250ab", "Qualcomm Snapdragon 765G (sm7250ab)", _three(A55, 6, A76, 1, A76), 7.0),
    Chip("sm8150", "Qualcomm Snapdragon 855 (sm8150)", _three(A55, 4, A76, 3, A76), 10.0),
    Chip("sm8150ac", "Qualcomm Snapdragon 855+ (sm8150ac)", _three(A55, 4, A76, 3, A76), 10.0),
    Chip("sm8250", "Qualcomm Snapdragon 865 (sm8250)", _three(A55, 4, A77, 3, A77), 10.0),
    Chip("sm8250ac", "Qualcomm Snapdragon 870 (sm8250ac)", _three(A55, 4, A77, 3, A77), 10.0),
    Chip("sm8350", "Qualcomm Snapdragon 888 (sm8350)", _three(A55, 4, A78, 3, X1), 12.0),
    Chip("zuma", "Google Tensor G3 (zuma)", _three(A510, 4, A715, 4, X3), 14.0, False),
    Chip("zumapro", "Google Tensor G4 (zumapro)", _three(A520, 4, A720, 3, X4), 14.0, False),
)
UNUSABLE = {
    "mt6768": "every power reading is below 1 mW",
    "t8103": "every power reading is 0",
}
"""SoCs of the data without a profile, and why."""
