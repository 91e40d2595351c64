"""Tiny models behind a real server on a Unix socket."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from serve_tools import Client, ManualClock, governed_by, serving

from lavolta.runtime.engine import Model, open_bundle
from lavolta.serve.pace import RealTime
from lavolta.serve.service import Service
from tiny_bundles import write_tiny


@pytest.fixture
def model(tmp_path: Path) -> Iterator[Model]:
    """A sentence encoder of three levels."""
    with open_bundle(write_tiny(tmp_path / "tiny.lavolta")) as opened:
        yield opened


@pytest.fixture
def classifier(tmp_path: Path) -> Iterator[Model]:
    """A classifier with two token types."""
    changes: dict[str, Any] = {"types": 2, "pooling": "cls", "outputs": 2, "task": "classification"}
    with open_bundle(write_tiny(tmp_path / "classifier.lavolta", labels=["no", "yes"], **changes)) as opened:
        yield opened


@pytest.fixture
def service(model: Model) -> Iterator[Service]:
    """The tiny model, governed by the clock of a test."""
    clock = ManualClock()
    with Service(model, governed_by(model, clock), RealTime(clock)) as made:
        yield made


@pytest.fixture
def client(service: Service, tmp_path: Path) -> Iterator[Client]:
    """One connection to a server of `service`."""
    with serving(service, tmp_path / "s.sock") as connect, connect() as opened:
        yield opened
