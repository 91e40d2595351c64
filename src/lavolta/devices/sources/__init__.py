"""How a device is at this moment, and its clock: a real Linux device, a simulated one, or a trace played again.

`docs/design/architecture.md`, section "Sources and control", has the contract.
"""

from lavolta.devices.sources.reading import MEASURED as MEASURED
from lavolta.devices.sources.reading import Degree as Degree
from lavolta.devices.sources.reading import FrequencyControl as FrequencyControl
from lavolta.devices.sources.reading import NoFrequencyControl as NoFrequencyControl
from lavolta.devices.sources.reading import Reading as Reading
from lavolta.devices.sources.reading import Source as Source
