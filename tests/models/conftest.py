"""The reference model and the tiny models are shared by several files; put them on the path."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "systems"), str(Path(__file__).parent)]
