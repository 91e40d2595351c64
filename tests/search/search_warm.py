"""Imported once by the process from which the killed ones fork, so that each of them starts with everything loaded."""

import tempfile
from pathlib import Path

import search_toys as toys

from lavolta.search import StudyConfig, run_study

with tempfile.TemporaryDirectory() as folder:
    # The third trial is the first that learns.
    run_study(toys.space(), toys.scores, toys.REWARD, StudyConfig(Path(folder) / "warm.db", trials=3))
