"""The engine beside what users would run instead, in one run on one machine."""

from lavolta.bench.running import BenchOptions as BenchOptions
from lavolta.bench.running import bench as bench
