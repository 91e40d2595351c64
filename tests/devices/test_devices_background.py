"""A device that does not answer never delays the one who asks."""

import threading

import pytest

from lavolta.devices.sources import MEASURED, Background, Reading
from lavolta.errors import UserInputError

TIMEOUT_S = 60.0
"""A wait that a broken implementation runs into; a working one never does."""


class Slow:
    """A source whose looks are let through one by one."""

    def __init__(self) -> None:
        self.open = threading.Semaphore(0)
        self.asked = threading.Semaphore(0)
        self.looks = 0

    def read(self) -> Reading:
        self.asked.release()
        assert self.open.acquire(timeout=TIMEOUT_S)
        self.looks += 1
        return Reading(float(self.looks), charge_share=0.5)


def test_it_answers_at_once_and_forgets_what_is_too_old() -> None:
    slow = Slow()
    now_s = [100.0]
    with Background(slow, interval_s=1e-6, stale_s=10.0, clock=lambda: now_s[0]) as source:
        reading = source.read()
        assert reading.charge_share is None
        assert {reading.why(name) for name in (*MEASURED, "time_s")} == {"the device has not answered yet."}
        slow.open.release()
        assert source.wait(TIMEOUT_S)
        assert source.read().charge_share == 0.5
        now_s[0] += 10.0
        assert source.read().charge_share == 0.5
        now_s[0] += 1.0
        reading = source.read()
        # The look is stuck in the kernel; the asker is not.
        assert reading.charge_share is None
        assert reading.time_s == 1.0
        assert reading.why("charge_share") == "the device has not answered for 11 s."
        for _ in range(3):
            assert slow.asked.acquire(timeout=TIMEOUT_S)
            slow.open.release()
        # The device answers again: the fourth question is asked only after the third answer was kept.
        assert slow.asked.acquire(timeout=TIMEOUT_S)
        assert source.read().charge_share == 0.5
        slow.open.release(1000)
    looks = slow.looks
    source.close()
    assert slow.looks == looks


def test_a_suspend_is_told_to_each_reader_once() -> None:
    class Sleeper(Slow):
        def read(self) -> Reading:
            reading = super().read()
            return Reading(reading.time_s, slept_s=7.0 if self.looks in (2, 3) else 0.0)

    sleeper = Sleeper()
    with Background(sleeper, interval_s=1e-6) as source:
        other = source.reader()

        def look(count: int) -> None:
            for _ in range(count):
                sleeper.open.release()
                # The next question comes after this answer was kept.
                assert sleeper.asked.acquire(timeout=TIMEOUT_S)

        assert sleeper.asked.acquire(timeout=TIMEOUT_S)
        look(1)
        assert source.read().slept_s == 0.0
        # The looks with the suspends are not the last.
        look(3)
        reading = source.read()
        assert (reading.time_s, reading.slept_s) == (4.0, 14.0)
        assert source.read().slept_s == 0.0
        assert other.read().slept_s == 14.0
        assert other.read().slept_s == 0.0
        sleeper.open.release(1000)


def test_wrong_times_are_refused() -> None:
    with pytest.raises(UserInputError, match="interval_s is 0"):
        Background(Slow(), interval_s=0)
    with pytest.raises(UserInputError, match="stale_s is -1"):
        Background(Slow(), stale_s=-1)
