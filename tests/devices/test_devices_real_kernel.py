"""A real Linux kernel in the loop: its ACPI battery, charger and cpufreq drivers, read and set by our sources.

A kernel of Debian boots in a virtual machine. `kernel/battery.asl` gives it a battery and a charger whose state lies in
a piece of memory that this test writes, and a processor with three clocks; `kernel/init` mirrors the kernel's files to
a folder that the machine shares with the host, and writes back what the host changes there.

Needs qemu-system-x86, busybox-static and acpica-tools, and an unpacked Debian kernel package, `--linux-image FOLDER`
(`apt-get download linux-image-VERSION-amd64`, `dpkg-deb -x ... FOLDER`); it is skipped where one of them is absent.
"""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import stat
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lavolta.devices.sources import Degree, LinuxFrequencyControl, LinuxSource

HERE = Path(__file__).parent / "kernel"
MODULES = (
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "netfs",
    "fscache",
    "9pnet",
    "9pnet_virtio",
    "9p",
    "ac",
    "battery",
    "cpufreq_userspace",
    "acpi-cpufreq",
)
"""In the order in which they can be loaded."""
BUILT_IN_LATER = ("fscache",)
"""Modules that newer kernels have inside another one."""
BATTERY_AT = 0x06000000
MEMORY_MB = 160
BOOT_S = 240.0
STEP_S = 120.0
"""Waits that only a broken machine runs into: it boots in seven seconds of processor time, and answers in one."""


def _newc(files: dict[str, tuple[int, bytes]]) -> bytes:
    """A cpio archive in the `newc` format: name to mode and content."""
    out = bytearray()
    for number, (name, (mode, content)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))]):
        encoded = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        out += bytes(-len(out) % 4) + content
        out += bytes(-len(out) % 4)
    return bytes(out)


@dataclass
class Machine:
    """The running machine.

    Args:
        root: the mirrored sysfs.
    """

    root: Path
    folder: Path
    process: subprocess.Popen[bytes]

    def battery(
        self,
        *,
        charging: bool,
        rate_mw: int,
        left_mwh: int,
        millivolts: int = 11_000,
        on_ac: bool,
        full_mwh: int = 50_000,
    ) -> None:
        """What the firmware tells the kernel from now on."""
        _battery(self.folder / "memory", charging, rate_mw, left_mwh, millivolts, on_ac, full_mwh)

    def until(self, what: Callable[[], bool]) -> bool:
        """Wait for the kernel; true when it came to pass."""
        end = time.monotonic() + STEP_S
        while time.monotonic() < end:
            if what():
                return True
            time.sleep(0.02)
        return False


def _battery(
    memory: Path, charging: bool, rate_mw: int, left_mwh: int, millivolts: int, on_ac: bool, full_mwh: int
) -> None:
    record = struct.pack("<7I", 2 if charging else 1, rate_mw, left_mwh, millivolts, on_ac, full_mwh, 1)
    with memory.open("r+b") as file:
        file.seek(BATTERY_AT)
        file.write(record)


def _tool(name: str, package: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (Debian: {package})")
    return path


@pytest.fixture(scope="module")
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    qemu = _tool("qemu-system-x86_64", "qemu-system-x86")
    busybox = _tool("busybox", "busybox-static")
    iasl = _tool("iasl", "acpica-tools")
    image = request.config.getoption("--linux-image")
    kernels = sorted(Path(image).glob("boot/vmlinuz-*-amd64")) if image else []
    if not kernels:
        pytest.skip("no kernel; unpack Debian's linux-image-VERSION-amd64 and give --linux-image FOLDER")
    kernel = kernels[-1]
    modules = Path(image) / "lib/modules" / kernel.name.removeprefix("vmlinuz-")
    folder = tmp_path_factory.mktemp("kernel")
    subprocess.run(
        [iasl, "-p", str(folder / "battery"), str(HERE / "battery.asl")], check=True, capture_output=True, timeout=60
    )
    files: dict[str, tuple[int, bytes]] = dict.fromkeys(
        ("bin", "mod", "proc", "sys", "dev", "host", "last"), (stat.S_IFDIR | 493, b"")
    )
    files["init"] = (stat.S_IFREG | 0o755, (HERE / "init").read_bytes())
    files["bin/busybox"] = (stat.S_IFREG | 0o755, Path(busybox).read_bytes())
    files["mod/order"] = (stat.S_IFREG | 0o644, "".join(f"{name}\n" for name in MODULES).encode())
    for name in MODULES:
        found = next(modules.rglob(f"{name}.ko*"), None)
        if found is None and name in BUILT_IN_LATER:
            continue
        if found is None:
            pytest.skip(f"{kernel.name} has no module {name}; take a kernel that is not the cloud one")
        content = found.read_bytes()
        files[f"mod/{name}.ko"] = (stat.S_IFREG | 0o644, lzma.decompress(content) if found.suffix == ".xz" else content)
    (folder / "initrd").write_bytes(gzip.compress(_newc(files), 1))
    share = folder / "share"
    share.mkdir()
    with (folder / "memory").open("wb") as memory:
        memory.truncate(MEMORY_MB << 20)
    _battery(folder / "memory", False, 10_000, 25_000, 11_000, False, 50_000)
    command = [
        *(qemu, "-accel", "tcg", "-cpu", "Nehalem", "-m", f"{MEMORY_MB}M", "-M", "pc,memory-backend=ram"),
        *("-object", f"memory-backend-file,id=ram,size={MEMORY_MB}M,mem-path={folder / 'memory'},share=on"),
        *("-acpitable", f"file={folder / 'battery.aml'}", "-kernel", str(kernel), "-initrd", str(folder / "initrd")),
        # The battery's piece of memory is not the kernel's to use.
        *("-append", f"console=ttyS0 quiet panic=-1 tsc=unstable memmap=64K${BATTERY_AT:#x}"),
        *("-nographic", "-no-reboot", "-net", "none", "-monitor", "none", "-serial", "stdio", "-serial", "null"),
        *("-virtfs", f"local,path={share},mount_tag=host,security_model=none"),
    ]
    with (folder / "console").open("wb") as console:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT)
        running = Machine(share / "sys", folder, process)
        try:
            end = time.monotonic() + BOOT_S
            while not (share / "round").exists():
                output = (folder / "console").read_text(errors="replace")
                assert process.poll() is None, f"the machine ended by itself:\n{output[-2000:]}"
                assert time.monotonic() < end, f"the machine did not come up:\n{output[-2000:]}"
                time.sleep(0.1)
            yield running
        finally:
            (share / "stop").touch()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(30)


def _attribute(machine: Machine, name: str) -> str:
    return (machine.root / "devices/system/cpu/cpufreq/policy0" / name).read_text().strip()


def test_the_battery_of_a_real_kernel_is_read(machine: Machine) -> None:
    source = LinuxSource(machine.root)
    machine.battery(charging=False, rate_mw=10_000, left_mwh=25_000, on_ac=False)
    assert machine.until(lambda: source.read().charge_mwh == 25_000 and source.read().on_ac is False)
    reading = source.read()
    assert (reading.charge_share, reading.capacity_mwh) == (0.5, 50_000.0)
    assert (reading.power_mw, reading.power_from) == (10_000.0, "battery")
    assert reading.freq_limit_mhz == {"policy0": 1400.0}
    assert set(reading.missing) == {"temperature_c"}


def test_plug_and_unplug_pass_through_the_drivers(machine: Machine) -> None:
    source = LinuxSource(machine.root)
    machine.battery(charging=True, rate_mw=5000, left_mwh=30_000, millivolts=12_000, on_ac=True)
    assert machine.until(lambda: source.read().on_ac is True and source.read().charge_share == 0.6)
    reading = source.read()
    assert reading.power_mw is None
    assert "no battery is being discharged" in (reading.why("power_mw") or "")
    machine.battery(charging=False, rate_mw=8000, left_mwh=10_000, on_ac=False)
    assert machine.until(lambda: source.read().on_ac is False and source.read().power_mw == 8000.0)
    assert source.read().charge_share == 0.2


def test_a_lying_battery_of_a_real_kernel_is_refused(machine: Machine) -> None:
    source = LinuxSource(machine.root)
    machine.battery(charging=False, rate_mw=8000, left_mwh=90_000, on_ac=False)
    assert machine.until(lambda: "claims a charge of 180 %" in (source.read().why("charge_share") or ""))
    assert source.read().charge_share is None
    machine.battery(charging=False, rate_mw=8000, left_mwh=10_000, on_ac=False)
    assert machine.until(lambda: source.read().charge_share == 0.2)


def test_the_clock_of_a_real_kernel_is_set_and_given_back(machine: Machine) -> None:
    assert os.access(machine.root, os.W_OK)
    source, control = LinuxSource(machine.root), LinuxFrequencyControl(machine.root)
    assert _attribute(machine, "scaling_driver") == "acpi-cpufreq"
    assert control.degree is Degree.SETS
    assert control.clusters == {"policy0": (400.0, 800.0, 1400.0)}
    for mhz in (400.0, 1400.0, 800.0):
        assert control.set_mhz("policy0", mhz)
        assert machine.until(lambda mhz=mhz: source.read().freq_mhz == {"policy0": mhz})
        assert _attribute(machine, "scaling_governor") == "userspace"
    control.release()
    assert machine.until(lambda: _attribute(machine, "scaling_setspeed") == "<unsupported>")
    assert _attribute(machine, "scaling_governor") == "schedutil"


def test_limits_of_a_real_kernel_are_drawn_together_and_put_back(machine: Machine) -> None:
    # A driver without the userspace governor: hide it in the mirrored folder only.
    governors = machine.root / "devices/system/cpu/cpufreq/policy0/scaling_available_governors"
    before = governors.read_text()
    governors.write_text("performance schedutil\n")
    try:
        control = LinuxFrequencyControl(machine.root)
        source = LinuxSource(machine.root, drawn=control.drawn)
        for mhz in (400.0, 1400.0):
            assert control.set_mhz("policy0", mhz)
            assert machine.until(lambda mhz=mhz: source.read().freq_mhz == {"policy0": mhz})
            assert _attribute(machine, "scaling_max_freq") == f"{1000 * mhz:.0f}"
            assert source.read().freq_limit_mhz == {"policy0": 1400.0}
        control.release()
        assert machine.until(lambda: _attribute(machine, "scaling_min_freq") == "400000")
        assert _attribute(machine, "scaling_max_freq") == "1400000"
    finally:
        governors.write_text(before)
