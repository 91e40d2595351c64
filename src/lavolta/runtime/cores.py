"""The cores of this computer, and which of them are fast."""

from __future__ import annotations

import json
from dataclasses import dataclass
from os import PathLike, fspath

from lavolta import _native
from lavolta.errors import UserInputError

FOLDER = "/sys/devices/system/cpu"


@dataclass(frozen=True)
class Core:
    """One core as the system describes it.

    Attributes:
        index: its number, as `lavolta.open(..., cores=[...])` takes it.
        capacity: relative speed by the kernel's scale, 1024 the fastest; None where it does not tell.
        max_khz: highest clock; None where the system does not tell.
        cluster: lowest core of those that share a cluster, or a clock.
    """

    index: int
    capacity: int | None
    max_khz: int | None
    cluster: int


def read_cores(folder: str | PathLike[str] = FOLDER) -> list[Core]:
    """The cores that are online, from a folder laid out like Linux's; empty where there is none."""
    rows = json.loads(_native.cores(fspath(folder), 1))["cores"]
    return [Core(row["core"], row["capacity"], row["max_khz"], row["cluster"]) for row in rows]


def fast_cores(threads: int, folder: str | PathLike[str] = FOLDER) -> list[int]:
    """The cores that a run keeps to by default, fastest first.

    As many as leave the system its choice, and so few that whatever it chooses has nine tenths of the speed of the
    fastest ``threads`` cores. On equal cores that is all of them, and the engine leaves its threads alone.

    Raises:
        UserInputError: ``threads`` is below 1.
    """
    if threads < 1:
        raise UserInputError(f"threads is {threads}; it must be at least 1.")
    cores: list[int] = json.loads(_native.cores(fspath(folder), threads))["fast"]
    return cores
