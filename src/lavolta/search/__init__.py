"""Which cut for which layer, which pattern set for which frequency: spaces, samplers, rewards and resumable studies.

Importing this package needs neither torch nor Optuna; the samplers and studies load Optuna when they are first named,
and the controller loads torch when it first samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lavolta.search.allocate import Allocation as Allocation
from lavolta.search.allocate import Option as Option
from lavolta.search.allocate import allocate as allocate
from lavolta.search.config import SAMPLERS as SAMPLERS
from lavolta.search.config import ControllerConfig as ControllerConfig
from lavolta.search.config import StudyConfig as StudyConfig
from lavolta.search.ratios import Part as Part
from lavolta.search.ratios import RatioSpace as RatioSpace
from lavolta.search.ratios import ShortList as ShortList
from lavolta.search.ratios import project as project
from lavolta.search.ratios import ratios_of as ratios_of
from lavolta.search.ratios import whole_cells as whole_cells
from lavolta.search.reward import HotNasReward as HotNasReward
from lavolta.search.reward import Reward as Reward
from lavolta.search.reward import Rt3Reward as Rt3Reward
from lavolta.search.reward import ScoreReward as ScoreReward
from lavolta.search.spaces import Candidate as Candidate
from lavolta.search.spaces import CutOption as CutOption
from lavolta.search.spaces import CutSpace as CutSpace
from lavolta.search.spaces import Facts as Facts
from lavolta.search.spaces import PatternSetSpace as PatternSetSpace
from lavolta.search.spaces import SearchSpace as SearchSpace
from lavolta.search.spaces import Step as Step
from lavolta.search.spaces import cut_space as cut_space
from lavolta.search.spaces import pattern_set_space as pattern_set_space

if TYPE_CHECKING:
    from lavolta.search.controller import ReinforceSampler as ReinforceSampler
    from lavolta.search.samplers import make_sampler as make_sampler
    from lavolta.search.study import Row as Row
    from lavolta.search.study import StudyResult as StudyResult
    from lavolta.search.study import run_study as run_study

_NEEDS_OPTUNA = {
    "ReinforceSampler": "controller",
    "make_sampler": "samplers",
    "Row": "study",
    "StudyResult": "study",
    "run_study": "study",
}


def __getattr__(name: str) -> Any:
    if name not in _NEEDS_OPTUNA:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_NEEDS_OPTUNA[name]}"), name)
