"""Results of the battery benchmark on disk as they come, so that a run that was ended goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from battery_models import DEMO, RESULTS
from lavolta import devices


class Kept:
    """Results by function and arguments, on disk as they come: each is a line. Other code or data forgets them."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._found: dict[str, Any] = {}
        if path is None:
            return
        mark = json.dumps(_digest())
        # What follows the last line break was being written when the run was ended.
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
        lines = lines if lines[:1] == [mark] else [mark]
        self._found = dict(json.loads(line) for line in lines[1:])
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def map(self, pool: ProcessPoolExecutor, function: Callable[..., Any], *arguments: Sequence[Any]) -> list[Any]:
        """As ``pool.map``, for what is not known yet."""
        calls = list(zip(*arguments, strict=True))
        keys = [f"{function.__name__} {' '.join(map(str, call))}" for call in calls]
        missing = [place for place, key in enumerate(keys) if key not in self._found]
        columns = [[column[place] for place in missing] for column in arguments]
        for place, result in zip(missing, pool.map(function, *columns), strict=True):
            self._found[keys[place]] = result
            if self._path is not None:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([keys[place], result]) + "\n")
        return [self._found[key] for key in keys]


def _digest() -> str:
    """Of everything that a result depends on."""
    home = Path(devices.__file__).parent
    code = [*Path(__file__).parent.glob("battery_*.py"), *home.parent.glob("runtime/*.py"), *home.rglob("*.*")]
    files = sorted([*code, DEMO, *RESULTS.glob("*.json")])
    found = hashlib.sha256()
    for path in files:
        if path.suffix != ".pyc":
            found.update(path.read_bytes())
    return found.hexdigest()
