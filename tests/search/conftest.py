"""Worker processes import the toy problems by name, so their folder must be on the path that they inherit."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
