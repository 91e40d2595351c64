"""How a device is at this moment, and its clock: a real Linux device, a simulated one, or a trace played again.

`docs/design/architecture.md`, section "Sources and control", has the contract.
"""

from lavolta.devices.sources.background import Background as Background
from lavolta.devices.sources.checked import Checked as Checked
from lavolta.devices.sources.checked import Plausible as Plausible
from lavolta.devices.sources.clocks import Clocks as Clocks
from lavolta.devices.sources.cpufreq import LinuxFrequencyControl as LinuxFrequencyControl
from lavolta.devices.sources.linux import SYSFS as SYSFS
from lavolta.devices.sources.linux import LinuxClocks as LinuxClocks
from lavolta.devices.sources.linux import LinuxSource as LinuxSource
from lavolta.devices.sources.reading import MEASURED as MEASURED
from lavolta.devices.sources.reading import Degree as Degree
from lavolta.devices.sources.reading import FrequencyControl as FrequencyControl
from lavolta.devices.sources.reading import NoFrequencyControl as NoFrequencyControl
from lavolta.devices.sources.reading import Reading as Reading
from lavolta.devices.sources.reading import Source as Source
from lavolta.devices.sources.replay import Replay as Replay
from lavolta.devices.sources.replay import from_record as from_record
from lavolta.devices.sources.replay import load_trace as load_trace
from lavolta.devices.sources.replay import to_json as to_json
from lavolta.devices.sources.simulated import SimulatedDevice as SimulatedDevice
from lavolta.devices.sources.topology import cluster_cpus as cluster_cpus
