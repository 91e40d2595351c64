"""Write a device profile as TOML that `load` reads back unchanged."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lavolta.devices.profile import DeviceProfile


def render(profile: DeviceProfile, comment: str = "") -> str:
    """The TOML text of a profile.

    Args:
        comment: lines that are put in front.
    """
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    data = profile.model_dump(exclude_none=True)
    clusters = data.pop("clusters")
    _table(lines, data, [])
    for cluster in clusters:
        latency = cluster.pop("latency")
        lines += ["", "[[clusters]]"]
        steps = cluster.pop("steps")
        _table(lines, cluster, None)
        lines += ["steps = [", *(f"  {_inline(step)}," for step in steps), "]"]
        for entry in latency:
            lines += ["", "[[clusters.latency]]"]
            _table(lines, entry, None)
    return "\n".join(lines) + "\n"


def _table(lines: list[str], data: Mapping[str, Any], path: list[str] | None) -> None:
    """Plain values first, then tables; with no path every table is written inside its line."""
    nested = {}
    for key, value in data.items():
        if isinstance(value, Mapping) and path is not None and key != "source":
            nested[key] = value
        else:
            lines.append(f"{key} = {_inline(value)}")
    for key, value in nested.items():
        lines += ["", f"[{'.'.join([*(path or []), key])}]"]
        _table(lines, value, [*(path or []), key])


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_inline(item)}" for key, item in value.items()) + " }"
    if isinstance(value, str):
        # JSON's escapes are those of TOML; only DEL is a control that JSON lets through.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Sequence):
        return "[" + ", ".join(_inline(item) for item in value) + "]"
    return repr(value)


def _key(key: Any) -> str:
    return json.dumps(str(key)) if str(key).isdigit() else str(key)
