"""Find a device profile by name or path, and turn every defect of its file into one sentence."""

from __future__ import annotations

import difflib
import sys
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from lavolta.devices.profile import DeviceProfile
from lavolta.errors import UserInputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT = "odroid-xu3-a7"
MAX_BYTES = 1 << 20
"""A profile is a few kilobytes; a larger file is something else."""


def names() -> list[str]:
    """Names of the profiles that ship with the package, sorted."""
    folder = resources.files("lavolta.devices") / "profiles"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load(name_or_path: str | Path = DEFAULT) -> DeviceProfile:
    """Read a profile: a shipped name, or the path of a TOML file (anything with a slash or the suffix ``.toml``).

    Raises:
        UserInputError: unknown name (the closest are listed), unreadable file, or a defect in it (the key is named).
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or text.endswith(".toml") or "/" in text:
        path = Path(name_or_path)
        try:
            size = path.stat().st_size
            content = path.read_bytes() if size <= MAX_BYTES else b""
        except OSError as error:
            raise UserInputError(f"cannot read the device profile {path}: {error.strerror}.") from error
        if size > MAX_BYTES:
            raise UserInputError(f"{path} has {size} bytes; a device profile has at most {MAX_BYTES}.")
        return parse(content, str(path))
    known = names()
    if text not in known:
        close = difflib.get_close_matches(text, known, n=3, cutoff=0.3) or known
        raise UserInputError(
            f"unknown device {text!r}; the closest are {', '.join(close)}; or give the path of a .toml profile."
        )
    return parse((resources.files("lavolta.devices") / "profiles" / f"{text}.toml").read_bytes(), text)


def parse(content: bytes, origin: str) -> DeviceProfile:
    """A profile from the bytes of a TOML file; ``origin`` is how messages call it."""
    try:
        data = tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserInputError(f"{origin} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error
    except tomllib.TOMLDecodeError as error:
        raise UserInputError(f"{origin} is not valid TOML: {error}.") from error
    return validate(data, origin)


def validate(data: dict[str, Any], origin: str) -> DeviceProfile:
    """A profile from plain data; the first defect becomes one sentence with the key and the way out."""
    try:
        return DeviceProfile.model_validate(data)
    except ValidationError as error:
        raise UserInputError(f"{origin}: {_sentence(error)}") from error


def _sentence(error: ValidationError) -> str:
    # An unknown key comes first: it is usually the cause of the missing one.
    found = sorted(error.errors(), key=lambda item: item["type"] != "extra_forbidden")[0]
    location = [part for part in found["loc"] if part != "[key]"]
    key = _key(location)
    if found["type"] == "extra_forbidden":
        siblings = _fields(location[:-1])
        close = difflib.get_close_matches(str(location[-1]), siblings, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known keys here are {', '.join(siblings)}."
        return f"unknown key {key}; {hint}"
    if found["type"] == "missing":
        return f"the key {key} is missing; add it (docs/reference/device-profile.md explains it)."
    if found["type"] == "value_error":
        return f"{key + ': ' if key else ''}{found['ctx']['error']}."
    message = found["msg"][0].lower() + found["msg"][1:]
    return f"{key} is {found['input']!r}; {message}."


def _key(location: list[str | int]) -> str:
    key = ""
    for part in location:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else part
    return key


def _fields(location: list[str | int]) -> list[str]:
    """Keys that the table at ``location`` may have."""
    model: type[BaseModel] = DeviceProfile
    for part in location:
        if isinstance(part, int):
            continue
        field = model.model_fields[part]
        model = next(t for t in _types(field.annotation) if isinstance(t, type) and issubclass(t, BaseModel))
    return list(model.model_fields)


def _types(annotation: Any) -> list[Any]:
    inner = getattr(annotation, "__args__", ())
    return [annotation] + [t for argument in inner for t in _types(argument)]
