"""What `result.json` holds: one model per object, with units; `docs/reference/result.md` is the page about it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lavolta.errors import UserInputError

RESULT_FORMAT = 1

Share = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    # A newer writer may add fields; an older reader leaves them out instead of refusing the file.
    model_config = ConfigDict(frozen=True, extra="ignore")


class LevelResult(_Part):
    """One level of the dial."""

    name: Annotated[str, Field(min_length=1, description="short name, such as `L0`")]
    sparsity: Share = Field(description="share of the prunable weights that are left out")
    fidelity: Annotated[float, Field(ge=-1.0, le=1.0)] | None = Field(
        None,
        description="mean cosine to the dense model's output on held-out text; of a model that writes, mean overlap of "
        "the distributions of the next token",
    )
    score: float | None = Field(None, description="task score, in the unit of `score_name`")
    latency_ms: NonNegative | None = Field(None, description="measured on this computer, median")
    dense_latency_ms: NonNegative | None = Field(
        None, description="the dense model, measured on this computer in the same run, median"
    )
    device_latency_ms: NonNegative | None = Field(None, description="predicted on the device at `freq_mhz`")
    device_energy_mj: NonNegative | None = Field(None, description="predicted energy of one inference on the device")
    freq_mhz: NonNegative | None = Field(None, description="the device's clock at which the level is meant to run")
    kept_by_layer: dict[str, Share] = Field(
        default_factory=dict, description="kept share of the weights of each prunable linear, by name"
    )


class PolicyResult(_Part):
    """What one policy made of one battery charge."""

    title: str | None = Field(None, description="the policy in words")
    inferences: Count = Field(description="answered requests in one charge, late answers included")
    misses: Count = Field(description="answers that came later than the deadline")
    time_h: NonNegative | None = Field(None, description="hours until the battery was empty")
    curve: list[tuple[NonNegative, Share]] = Field(
        default_factory=list, description="pairs of hours and share of the charge that is left"
    )
    energy_by_level_mj: dict[str, NonNegative] = Field(
        default_factory=dict, description="energy spent in inferences, by level name"
    )
    time_by_level_h: dict[str, NonNegative] = Field(
        default_factory=dict, description="hours during which the level was chosen, by level name"
    )
    mean_fidelity: float | None = Field(None, description="mean over the answered requests")

    @property
    def on_time(self) -> int:
        """Answers that kept the deadline."""
        return max(0, self.inferences - self.misses)


class Assumption(_Part):
    """A statement that the numbers rest on."""

    text: str = Field(description="one sentence")
    label: str = Field("assumed", description="`measured`, `modelled`, `published`, `assumed`, ...")


class Result(_Part):
    """Everything one run found out; every part that a run did not make may be absent."""

    format: Literal[1] = Field(1, description="version of this schema")
    levels: Annotated[list[LevelResult], Field(min_length=1)] = Field(description="densest first")
    score_name: str | None = Field(None, description="what `score` is, with its unit")
    model: dict[str, Any] = Field(default_factory=dict, description="`name` and free fields")
    device: dict[str, Any] = Field(
        default_factory=dict, description="`name`, `title`, `power` (`CPU only` or `whole board`) and free fields"
    )
    deadline_ms: NonNegative | None = Field(None, description="an answer that takes longer is a miss")
    period_ms: NonNegative | None = Field(None, description="a request arrives every so many milliseconds")
    switch_us_p50: NonNegative | None = Field(None, description="median time of one switch of the level")
    switch_us_p99: NonNegative | None = Field(None, description="99 of 100 switches are at least as quick")
    bytes_moved_per_switch: Count | None = Field(None, description="weight bytes that one switch copies or repacks")
    span: str | None = Field(None, description="what the policies were compared over; absent: one battery charge")
    policies: dict[str, PolicyResult] = Field(default_factory=dict, description="the policies compared, by name")
    our_policy: str | None = Field(
        None, description="the name of ours in `policies`; absent: the last one; empty: none"
    )
    baseline_policy: str | None = Field(
        None, description="what ours is compared with; absent: the first one; empty: none"
    )
    inferences_per_charge: dict[str, Count] = Field(default_factory=dict, description="by policy")
    deadline_misses: dict[str, Count] = Field(default_factory=dict, description="by policy")
    improvement: NonNegative | None = Field(
        None, description="answers in time per charge: ours divided by the baseline's"
    )
    baseline: str | None = Field(None, description="what the baseline is, in words")
    assumptions: list[Assumption] = Field(default_factory=list, description="what the numbers rest on")
    environment: dict[str, Any] = Field(default_factory=dict, description="`cpu`, `threads`, `date` and free fields")
    seconds: dict[str, NonNegative] = Field(default_factory=dict, description="wall time of each stage of the run")

    @model_validator(mode="after")
    def _names_exist(self) -> Result:
        for field in ("our_policy", "baseline_policy"):
            name = getattr(self, field)
            if name and self.policies and name not in self.policies:
                raise ValueError(f"{field} is {name!r}, which is not in policies ({', '.join(self.policies)})")
        return self

    def ours(self) -> tuple[str, PolicyResult] | None:
        """Name and numbers of our policy; `None` where it was not simulated."""
        if not self.policies or self.our_policy == "":
            return None
        name = self.our_policy or list(self.policies)[-1]
        return name, self.policies[name]

    def base(self) -> tuple[str, PolicyResult] | None:
        """Name and numbers of the policy that ours is compared with; `None` where it was not simulated."""
        if not self.policies or self.baseline_policy == "":
            return None
        name = self.baseline_policy or next(iter(self.policies))
        return name, self.policies[name]


def parse_result(data: Mapping[str, Any]) -> Result:
    """Check a result against the schema.

    Numbers that are not finite count as absent, because JSON has no word for them.

    Raises:
        UserInputError: the first field that is wrong, by its path.
    """
    try:
        return Result.model_validate(_finite(data))
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"]) or "the result"
        raise UserInputError(
            f"the result is not in the form of docs/reference/result.md: {path}: {first['msg']}."
        ) from error


def load_result(path: str | PathLike[str]) -> dict[str, Any]:
    """Read a `result.json`.

    Raises:
        UserInputError: the file is missing, not UTF-8, not JSON, or not an object.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserInputError(f"there is no {path}; run `lavolta demo` or give the folder of a run.") from error
    except UnicodeDecodeError as error:
        raise UserInputError(f"{path} is not UTF-8 text at byte {error.start}; it should be a JSON file.") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserInputError(f"{path} is not valid JSON ({error}); run the command that wrote it again.") from error
    if not isinstance(data, dict):
        raise UserInputError(f"{path} holds a JSON {type(data).__name__}; a result is an object.")
    return data


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
