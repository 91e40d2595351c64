"""The engine's thread and the queue in front of it: order, limits, clients that leave, defects, and the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serve_tools import LONG_MS, TIMEOUT_S, Fake, Gate, ManualClock, governed_by, in_numbers, until

from lavolta.devices.sources import Reading
from lavolta.errors import CancelledError, EngineError, InfeasibleError, UserInputError
from lavolta.runtime.engine import Model
from lavolta.runtime.governed import Governed
from lavolta.runtime.governor import Goal
from lavolta.runtime.governor_loop import Answer, LiveGovernor
from lavolta.runtime.governor_simulated import SimulatedRunner
from lavolta.runtime.scenario import Scenario
from lavolta.serve.pace import RealTime, SimulatedTime
from lavolta.serve.refusals import RefusedError
from lavolta.serve.service import Service
from lavolta.serve.waiting import Job, WaitingRoom

Made = Callable[..., tuple[Service, Gate]]


@pytest.fixture
def gated(model: Model) -> Iterator[Made]:
    """A service whose runs a test lets through; closed at the end."""
    made: list[tuple[Service, Gate]] = []

    def make(**options: object) -> tuple[Service, Gate]:
        gate, clock = Gate(), ManualClock()
        service = Service(model, governed_by(model, clock, runner=gate), RealTime(clock), **options)  # type: ignore[arg-type]
        made.append((service, gate))
        return service, gate

    yield make
    for service, gate in made:
        gate.open.release(1000)
        service.close(TIMEOUT_S)
        assert not service.alive


def test_the_request_that_is_due_first_runs_first(gated: Made) -> None:
    service, gate = gated()
    now_s = service.now_s()
    first = service.submit("first", now_s)
    gate.wait()
    jobs = [
        service.submit(name, now_s, deadline_ms) for name, deadline_ms in (("b", 500.0), ("a", 100.0), ("c", 500.0))
    ]
    assert service.depth == 4
    gate.open.release(4)
    assert [job.done.result(TIMEOUT_S).index for job in (first, *jobs)] == [0, 2, 1, 3]
    assert gate.ran == ["first", "a", "b", "c"]
    # The time stands still: what is left of the deadline is all of it.
    assert jobs[1].done.result().output[0, 0] == 100.0
    assert jobs[1].done.result().deadline_ms == 100.0


def test_too_many_are_refused_with_a_time_to_ask_again(gated: Made) -> None:
    service, gate = gated(queue=2)
    jobs = [service.submit(0, service.now_s())]
    gate.wait()
    jobs += [service.submit(number, service.now_s()) for number in (1, 2)]
    with pytest.raises(RefusedError, match="2 requests wait already") as refusal:
        service.submit(3, service.now_s())
    assert (refusal.value.status, refusal.value.kind) == (503, "busy")
    assert refusal.value.headers() == {"Retry-After": "1"}
    gate.open.release(3)
    assert [job.done.result(TIMEOUT_S).index for job in jobs] == [0, 1, 2]
    assert service.recorder.totals().refused["busy"] == 1
    # There is room again.
    gate.open.release()
    assert service.submit(4, service.now_s()).done.result(TIMEOUT_S).index == 3


def test_a_request_whose_asker_left_does_not_run(gated: Made) -> None:
    service, gate = gated()
    running = service.submit("running", service.now_s())
    gate.wait()
    waiting, last = (service.submit(name, service.now_s()) for name in ("waiting", "last"))
    service.withdraw(waiting)
    gate.open.release(2)
    assert last.done.result(TIMEOUT_S).index == 1
    assert running.done.result().index == 0
    assert gate.ran == ["running", "last"]
    assert waiting.done.cancelled()
    assert service.recorder.totals().refused["cancelled"] == 1
    # A second word, or one that comes too late, changes nothing.
    service.withdraw(waiting)
    service.withdraw(last)
    assert service.recorder.totals().refused["cancelled"] == 1


def test_the_run_of_an_asker_who_left_is_ended_and_no_other(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, clock, cancelled = Gate(), ManualClock(), []
    monkeypatch.setattr(model, "cancel", lambda: cancelled.append(True))
    with Service(model, governed_by(model, clock, runner=gate), RealTime(clock)) as service:
        job = service.submit("x", service.now_s())
        gate.wait()
        gate.fail = CancelledError("another thread cancelled the run.")
        service.withdraw(job)
        assert cancelled == [True]
        gate.open.release()
        with pytest.raises(CancelledError):
            job.done.result(TIMEOUT_S)
        assert service.recorder.totals().refused == {"busy": 0, "invalid": 0, "cancelled": 1, "failed": 0}
        gate.fail = None
        gate.open.release()
        after = service.submit("y", service.now_s())
        assert after.done.result(TIMEOUT_S).index == 0
        service.withdraw(job)
        assert cancelled == [True]


@pytest.mark.parametrize("error", [EngineError("there is not enough memory."), RuntimeError("a defect")])
def test_an_error_answers_one_request_only(error: Exception, gated: Made, capsys: pytest.CaptureFixture[str]) -> None:
    service, gate = gated()
    gate.fail = error
    gate.open.release(2)
    with pytest.raises(type(error), match=str(error)):
        service.submit("x", service.now_s()).done.result(TIMEOUT_S)
    gate.fail = None
    assert service.submit("y", service.now_s()).done.result(TIMEOUT_S).index == 0
    assert service.recorder.totals().refused["failed"] == 1
    assert ("a defect" in capsys.readouterr().err) == isinstance(error, RuntimeError)


def test_closing_answers_those_that_wait(gated: Made) -> None:
    service, gate = gated()
    jobs = [service.submit(number, service.now_s()) for number in range(3)]
    gate.wait()
    service.refuse_new()
    with pytest.raises(RefusedError, match="the server is being stopped") as refusal:
        service.submit(3, service.now_s())
    assert refusal.value.kind == "stopping"
    assert service.stopping
    gate.open.release(3)
    service.close(TIMEOUT_S)
    service.close(TIMEOUT_S)
    assert [job.done.result(0).index for job in jobs] == [0, 1, 2]
    assert not service.alive


def test_aborting_answers_nobody_any_more(gated: Made) -> None:
    service, gate = gated()
    jobs = [service.submit(number, service.now_s()) for number in range(3)]
    gate.wait()
    service.abort()
    for job in jobs[1:]:
        with pytest.raises(RefusedError, match="was stopped before it came to this request"):
            job.done.result(TIMEOUT_S)
    gate.open.release()
    service.close(TIMEOUT_S)
    assert gate.ran == [0]


def test_a_pinned_level_is_that_of_later_answers(gated: Made) -> None:
    service, gate = gated()
    gate.open.release(3)
    assert service.submit("x", service.now_s()).done.result(TIMEOUT_S).level == "L2"
    service.pin("L0")
    assert service.submit("x", service.now_s()).done.result(TIMEOUT_S).level == "L0"
    with pytest.raises(UserInputError, match="there is no level 'L7'"):
        service.pin("L7")
    service.pin(None)
    assert service.submit("x", service.now_s()).done.result(TIMEOUT_S).level == "L2"


def test_a_level_that_is_too_slow_is_not_pinned(model: Model) -> None:
    clock = ManualClock()
    slow = governed_by(model, clock, runner=lambda *_: Answer(None), deadline_ms=1.5)
    with (
        Service(model, slow, RealTime(clock)) as service,
        pytest.raises(InfeasibleError, match=r"no level meets 1\.5 ms"),
    ):
        service.pin("L0")


def test_a_real_device_is_not_plugged_by_software(gated: Made) -> None:
    with pytest.raises(RefusedError, match="this device is a real one"):
        gated()[0].plug(True)


def simulated(model: Model, charge: float = 1.0, capacity_mwh: float = 1000.0) -> Governed:
    device = in_numbers(charge, capacity_mwh)
    levels = governed_by(model, ManualClock(), runner=lambda *_: Answer(None)).governor.scenario.levels
    scenario = Scenario(device.profile, levels, 1000.0, 1000.0, gap_ms=0.0)
    runner = SimulatedRunner(device, levels, compute=lambda request, level: (request, level))
    governor = LiveGovernor(scenario, Goal(), runner, device, device, runner.now_s)
    over = lambda: device.empty  # noqa: E731
    return Governed(governor, device, device, runner.now_s, runner.wait_until, over, governor.close, device)


def test_a_simulated_device_takes_its_own_time(model: Model) -> None:
    clock, pauses = ManualClock(), []

    def wait(time_s: float) -> None:
        pauses.append(time_s)
        clock.now_s += time_s

    place = simulated(model)
    pace = SimulatedTime(place, 10.0, clock, wait)
    assert (pace.speed, pace.now_s()) == (10.0, 0.0)
    clock.now_s += 1.0
    assert pace.now_s() == pytest.approx(10.0)
    with Service(model, place, pace, clock=clock) as service:
        served = service.submit("x", 10.0).done.result(TIMEOUT_S)
    # Whatever this computer took: the device idled until the request came, and answered after its own time.
    assert served.response_ms == pytest.approx(served.run_ms)
    assert pauses == [pytest.approx(served.run_ms / 1e3 / 10.0)]
    assert place.now_s() == pytest.approx(10.0 + served.run_ms / 1e3)


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf")])
def test_a_speed_that_is_not_possible(speed: float, model: Model) -> None:
    with pytest.raises(UserInputError, match="a speed of"):
        SimulatedTime(simulated(model), speed)


def test_an_empty_battery_refuses_until_it_is_plugged_in(model: Model) -> None:
    place = simulated(model, capacity_mwh=1e-6)
    clock = ManualClock()
    with Service(model, place, SimulatedTime(place, 1.0, clock, lambda _: None), clock=clock) as service:
        # The battery gives out in the middle of the first run: that is no answer.
        with pytest.raises(RefusedError, match="the battery of the simulated device is empty"):
            service.submit("x", service.now_s()).done.result(TIMEOUT_S)
        with pytest.raises(RefusedError) as refusal:
            service.submit("x", service.now_s())
        assert (refusal.value.status, refusal.value.kind) == (503, "battery-empty")
        service.plug(True)
        clock.now_s += 10.0

        def ready() -> bool:
            try:
                service.require_ready()
            except RefusedError:
                return False
            return True

        # The engine's thread looks at the battery again by itself.
        until(ready)
        job = service.submit("x", service.now_s())
        assert job.done.result(TIMEOUT_S).on_ac


def test_the_device_is_looked_at_between_requests(model: Model) -> None:
    clock, source = ManualClock(), Fake()
    place = governed_by(model, clock, runner=lambda *_: Answer(None), source=source)
    with Service(model, place, RealTime(clock), look_s=0.001, clock=clock) as service:
        assert service.recorder.reading is source.reading
        source.reading = Reading(1.0, charge_share=0.4, charge_mwh=400.0, on_ac=False)
        clock.now_s += 1.0
        service.submit("x", clock.now_s).done.result(TIMEOUT_S)
        until(lambda: service.recorder.reading is source.reading)


@given(st.lists(st.floats(0, 1000), max_size=12))
def test_jobs_leave_in_the_order_of_their_deadlines(deadlines_ms: list[float]) -> None:
    room = WaitingRoom(100)
    jobs = [Job(place, 0.0, deadline_ms) for place, deadline_ms in enumerate(deadlines_ms)]
    for job in jobs:
        assert room.put(job)
    left = []
    while len(room):
        job, behind = room.take(0.0)
        assert job is not None
        assert behind == sorted(behind, key=lambda other: other.due_s)
        left.append((job.due_s, job.request))
    assert left == sorted(left)
    assert room.take(0.0) == (None, [])


def test_a_closed_room_takes_none_and_gives_what_it_has() -> None:
    room = WaitingRoom(2)
    job = Job("x", 0.0, LONG_MS)
    assert room.put(job)
    room.close()
    assert not room.put(Job("y", 0.0, LONG_MS))
    assert room.take(TIMEOUT_S) == (job, [])
    assert room.take(TIMEOUT_S) == (None, [])
