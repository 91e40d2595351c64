"""The makers of broken bundles import each other; put them on the path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
