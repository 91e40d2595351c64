"""A folder that looks like sysfs, clocks that a test moves, and a user without rights."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from fake_sysfs import Sysfs
from lavolta.devices.sources import Clocks


class ManualClock:
    """Seconds that only a test moves."""

    def __init__(self) -> None:
        self.running_s = 1000.0
        self.elapsed_s = 5000.0

    def tick(self, seconds: float) -> None:
        self.running_s += seconds
        self.elapsed_s += seconds

    def sleep(self, seconds: float) -> None:
        """Suspend: only the elapsed time goes on."""
        self.elapsed_s += seconds

    @property
    def clocks(self) -> Clocks:
        return Clocks(lambda: self.running_s, lambda: self.elapsed_s)


@pytest.fixture
def sysfs() -> Iterator[Sysfs]:
    # Every user may enter it, unlike pytest's own folders.
    root = Path(tempfile.mkdtemp(prefix="lavolta-sysfs-"))
    root.chmod(0o755)
    yield Sysfs(root)
    shutil.rmtree(root)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def unprivileged() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Inside it, file permissions count even where the tests run as root."""

    @contextlib.contextmanager
    def drop() -> Iterator[None]:
        before = os.geteuid()
        if before == 0:
            os.seteuid(65534)
        try:
            yield
        finally:
            if before == 0:
                os.seteuid(0)

    return drop
