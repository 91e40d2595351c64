"""A profile of another processor is refused with a sentence that says why."""

import pytest

from lavolta import devices
from lavolta.devices.identity import nominal_mhz, read_identity, require_same_cpu
from lavolta.errors import UserInputError

XEON = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 207
model name\t: Intel(R) Xeon(R) Processor
cpu MHz\t\t: 2300.000

processor\t: 1
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 207
model name\t: Intel(R) Xeon(R) Processor
cpu MHz\t\t: 2100.000
"""
ROCKCHIP = """processor\t: 0
BogoMIPS\t: 48.00
CPU implementer\t: 0x41
CPU architecture: 8
CPU part\t: 0xd05

processor\t: 4
CPU implementer\t: 0x41
CPU part\t: 0xd0b

Hardware\t: Rockchip RK3588
"""


@pytest.fixture
def proc(tmp_path):
    def make(text: str):
        (tmp_path / "cpuinfo").write_text(text)
        return tmp_path

    return make


def test_x86_and_arm_are_read(proc) -> None:
    xeon = read_identity(("reference", "avx2"), proc(XEON), "x86_64")
    assert xeon.parts == ("GenuineIntel:6:207",)
    assert xeon.model == "Intel(R) Xeon(R) Processor"
    assert xeon.instruction_sets == ("reference", "avx2")
    assert nominal_mhz(proc(XEON)) == 2300.0
    arm = read_identity((), proc(ROCKCHIP), "aarch64")
    assert arm.parts == ("0x41:0xd05", "0x41:0xd0b")
    assert arm.model == "Rockchip RK3588"
    assert nominal_mhz(proc(ROCKCHIP)) is None


def test_nothing_to_read_is_unknown(tmp_path) -> None:
    identity = read_identity((), tmp_path, "riscv64")
    assert (identity.architecture, identity.parts, identity.model) == ("riscv64", ("unknown",), "")
    assert nominal_mhz(tmp_path) is None


def _measured(identity: devices.CpuIdentity) -> devices.DeviceProfile:
    return devices.load("odroid-xu3-a7").model_copy(update={"cpu": identity})


def test_the_same_machine_is_accepted(proc) -> None:
    identity = read_identity(("reference", "avx2"), proc(XEON), "x86_64")
    require_same_cpu(_measured(identity), identity)
    require_same_cpu(_measured(identity), identity, cpus=(0, 1, 2, 3))


def test_each_difference_is_one_sentence(proc) -> None:
    here = read_identity(("reference", "avx2"), proc(XEON), "x86_64")
    there = read_identity(("reference", "neon"), proc(ROCKCHIP), "aarch64")
    with pytest.raises(UserInputError, match=r"was not measured by this program.*make one here with `lavolta device"):
        require_same_cpu(devices.load("odroid-xu3-a7"), here)
    with pytest.raises(
        UserInputError, match=r"measured on Rockchip RK3588 .*0xd0b.* of aarch64; this is Intel.* of x86_64"
    ):
        require_same_cpu(_measured(there), here)
    fewer = here.model_copy(update={"instruction_sets": ("reference",)})
    with pytest.raises(UserInputError, match=r"measured with the kernels reference; here are reference, avx2"):
        require_same_cpu(_measured(fewer), here)
    with pytest.raises(UserInputError, match=r"measured with CPU 2, 3, which does not run here"):
        require_same_cpu(_measured(here), here, cpus=(0, 1))
