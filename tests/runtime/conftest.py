"""The reference model and broken bundles are shared with other folders; put them on the path."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "hostile"), str(Path(__file__).parent)]
