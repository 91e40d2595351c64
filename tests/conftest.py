"""Shared fixtures: strict numerics, one torch thread, and the path option for data that is not part of the product."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# A property is true or false, however busy the machine is: no example has a time limit.
settings.register_profile("lavolta", deadline=None)
settings.load_profile("lavolta")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--shared-data",
        default="../shared",
        help="folder that holds data/ (GLUE, WikiText-2, freqbench ...); tests that need it skip where it is absent",
    )
    parser.addoption(
        "--linux-image",
        default="",
        help="folder with an unpacked Debian kernel package, to boot in tests/devices/test_devices_real_kernel.py",
    )


@pytest.fixture(scope="session")
def shared_data(request: pytest.FixtureRequest) -> Path:
    """The `data` folder beside the product; skips with the reason where it is absent."""
    folder = Path(request.config.getoption("--shared-data")) / "data"
    if not folder.is_dir():
        pytest.skip(f"no data folder at {folder}; give --shared-data DIR")
    return folder.resolve()
