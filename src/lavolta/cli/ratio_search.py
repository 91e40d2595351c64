"""The search for ratios behind `lavolta prune --method aebert...`: its options, checked, and its run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavolta.cli.compress import check_positive
from lavolta.errors import UserInputError
from lavolta.systems.spd import defaults

if TYPE_CHECKING:
    import typer

    from lavolta.models.loaded import LoadedModel
    from lavolta.progress import Progress
    from lavolta.systems.spd.output import FoundRatios, RatioSearch
    from lavolta.training.task_data import TaskSplits

PROXIES = ("kl", "hidden", "loss", "ladder", "reconstruction")
"""Those of `lavolta.training.proxies`, which needs torch."""


@dataclass(frozen=True)
class SearchOptions:
    """What the command was asked for; fields are options of `prune`, and arguments of `choose_ratios`.

    Args:
        overall_ratio: share of the prunable weights that goes; ``None`` where a device's limits decide.
    """

    overall_ratio: float | None
    device: str | None
    deadline_ms: float | None
    energy_mj: float | None
    tokens: int
    threads: int
    proxy: str
    candidates: int
    workers: int
    cell_rows: int
    seed: int

    @property
    def limited(self) -> bool:
        """Whether time or energy on a device is the budget."""
        return self.device is not None


OPTIONS = ("device", "deadline_ms", "energy_mj", "tokens", "threads", "proxy", "candidates", "workers")
"""Options of `prune` that mean something for a search alone."""


def check_search(context: typer.Context, method: str, options: SearchOptions, ratios: Path | None) -> SearchOptions:
    """Refuse options that contradict one another; returns them with the budget that counts.

    Raises:
        UserInputError: options of a search without one, two budgets, or half of one.
    """
    given = [name for name in (*OPTIONS, "sparsity") if _is_given(context, name)]
    words = [f"--{name.replace('_', '-')}" for name in given]
    if method not in defaults.SEARCHED:
        if alone := [word for word in words if word != "--sparsity"]:
            taken = defaults.BEST if method == defaults.METHOD else method
            raise UserInputError(
                f"{alone[0]} is for a search for ratios, and {taken} has none; take --method aebert or aebert+{taken}."
            )
        if ratios is not None and "sparsity" in given:
            raise UserInputError("--ratios says how much of each layer goes, and --sparsity of all; leave one out.")
        return options
    if ratios is not None:
        raise UserInputError(f"{method} searches for ratios, and --ratios gives them; leave one of them out.")
    if options.proxy not in PROXIES:
        raise UserInputError(f"--proxy is {options.proxy!r}; choose one of {', '.join(PROXIES)}.")
    limits = {"--deadline-ms": options.deadline_ms, "--energy-mj": options.energy_mj}
    for name, value in limits.items():
        if value is not None:
            check_positive(name, value)
    if options.limited != any(value is not None for value in limits.values()):
        raise UserInputError("the budget of a device is --device with --deadline-ms, --energy-mj or both; give both.")
    if not options.limited:
        return options
    if "sparsity" in given:
        raise UserInputError("--sparsity and --device are two budgets; leave one of them out.")
    from lavolta.devices import load

    load(str(options.device))
    return replace(options, overall_ratio=None)


def ratio_search(method: str, options: SearchOptions) -> RatioSearch:
    """AE-BERT's ratios as a step of the pruning; a search that was cut off continues."""
    from lavolta.devices import load
    from lavolta.systems.aebert import choose_ratios
    from lavolta.systems.aebert.budget import budget_of
    from lavolta.systems.aebert.space import compared_space
    from lavolta.systems.spd.output import FoundRatios, RatioSearch

    arguments: dict[str, Any] = asdict(options)

    def check(model: LoadedModel) -> None:
        names = ("overall_ratio", "device", "deadline_ms", "energy_mj", "tokens", "threads", "cell_rows")
        compared_space(budget_of(model, **{name: arguments[name] for name in names}))

    def run(dense: LoadedModel, splits: TaskSplits, work: Path, progress: Progress) -> FoundRatios:
        train, held_out = splits.train, splits.held_out
        found = choose_ratios(dense, train, held_out, storage=work / "ratios.db", progress=progress, **arguments)
        return FoundRatios(found.per_linear, found.as_dict())

    # A device's file may be measured anew under its name.
    profile = load(options.device).model_dump_json() if options.device is not None else None
    return RatioSearch(method.partition("+")[0], json.dumps([arguments, profile], sort_keys=True), check, run)


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name not in ("DEFAULT", "DEFAULT_MAP")
