"""Toys of this room and tiny models of the models room; put them on the path."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "models"), str(Path(__file__).parent)]
