"""The clock of a device in the hands of the governor: a clock that was refused counts as one that cannot be set."""

from __future__ import annotations

from lavolta.devices.sources import Degree, FrequencyControl


class GovernedClock:
    """Sets the clock of clusters through a control, and knows how far that is possible.

    A control may set the clocks of some clusters and not of the one that is asked for: the degree falls then as with
    any other refusal, for good, and the clock is given back.
    """

    def __init__(self, control: FrequencyControl) -> None:
        self._control = control
        self._refused = ""

    @property
    def degree(self) -> Degree:
        """How far the clock can be controlled at present."""
        degree = self._control.degree
        return Degree.FOLLOWS if self._refused and degree is Degree.SETS else degree

    @property
    def why(self) -> str:
        """Why it is not more than that; empty where it sets the clock."""
        return self._control.why or self._refused

    def set(self, cluster: str, wanted_mhz: float) -> bool:
        """Set a clock that is not slower than a wanted one; false where it was refused."""
        steps = self._control.clusters.get(cluster, ())
        # The profile's steps and the system's may differ a little: never slower than was decided.
        step = next((mhz for mhz in steps if mhz >= wanted_mhz - 0.5), steps[-1] if steps else wanted_mhz)
        if self.degree is Degree.SETS and self._control.set_mhz(cluster, step):
            return True
        if self.degree is Degree.SETS:
            self._refused = f"the system did not take {step:g} MHz as the clock of cluster {cluster}."
            self._control.release()
        return False

    def park(self, cluster: str) -> None:
        """Let a cluster that is left idle at its lowest clock: a high one may keep its voltage up."""
        steps = self._control.clusters.get(cluster, ())
        if steps:
            self.set(cluster, steps[0])

    def release(self) -> None:
        """Give the clock back to the system."""
        self._control.release()
