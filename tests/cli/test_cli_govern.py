"""`govern` on tiny bundles: simulated devices, texts from standard input, a system without any device."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

import lavolta
from fake_sysfs import Sysfs

if TYPE_CHECKING:
    from .conftest import Invoke

SIMULATED = ("--simulate", "--device", "odroid-xu3-a7")


def test_texts_are_answered_at_the_level_that_the_governor_chose(invoke: Invoke, bundle: Path) -> None:
    outcome = invoke(
        "govern", bundle, "--deadline-ms", 1000, *SIMULATED, "--json", stdin=b'a cat\n{"text": "the dog"}\n\n'
    )
    assert (outcome.code, outcome.err) == (0, "")
    assert (outcome.data["requests"], outcome.data["misses"]) == (2, 0)
    with lavolta.open(bundle) as model:
        for answer, text in zip(outcome.data["answers"], ("a cat", "the dog"), strict=True):
            model.switch(answer["level"])
            assert np.array_equal(np.float32(answer["output"]), model.encode([text]))
    # The sparsest level costs least.
    assert set(outcome.data["levels"]) == {"L2"}
    assert outcome.data["degree"] == "sets"


def test_a_reserve_is_spent_on_score(invoke: Invoke, bundle: Path) -> None:
    given = ("govern", bundle, "--deadline-ms", 1000, *SIMULATED, "--period-ms", 1000, "--requests", 3, "--json")
    assert set(invoke(*given, "--reserve", "10%").data["levels"]) == {"L0"}
    assert set(invoke(*given, "--until", "1s").data["levels"]) == {"L0"}
    assert set(invoke(*given, "--until", "1000000h", "--reserve", 0.1).data["levels"]) == {"L2"}
    # The levels score 1, 0.95 and 0.9.
    between = invoke(*given, "--mean-score", 0.93, "--requests", 100).data
    assert set(between["levels"]) == {"L1", "L2"}
    assert 0.93 <= between["mean_score"] < 0.95
    again = invoke(*given, "--seed", 5).data
    assert again == invoke(*given, "--seed", 5).data
    assert again["requests"] == 3


def test_a_charge_that_cannot_last_is_said_once(invoke: Invoke, bundle: Path, tmp_path: Path) -> None:
    given = ("govern", bundle, "--deadline-ms", 1000, "--period-ms", 1000, "--requests", 3, "--json")
    assert invoke(*given, *SIMULATED, "--until", "2h").err == ""
    short = invoke(*given, *SIMULATED, "--until", "1000h", "--reserve", "10%")
    assert short.code == 0
    said = re.fullmatch(
        r"lavolta: even at the lowest energy the charge is spent down to 10 % ([0-9.]+) h before the 1000 h are over; "
        r"wish for less, or allow a longer deadline.\n",
        short.err,
    )
    assert said is not None
    assert float(said[1]) == pytest.approx(short.data["answers"][0]["short_h"], abs=0.05)
    # A rhythm that is not given is learned first.
    learned = ("govern", bundle, "--deadline-ms", 1000, *SIMULATED, "--until", "1000h", "--json")
    assert invoke(*learned, stdin=b"a cat\n" * 32).err == ""
    assert "the charge is spent" in invoke(*learned, stdin=b"a cat\n" * 33).err
    # A system without a battery to read.
    blind = invoke("govern", bundle, "--deadline-ms", 60_000, "--sysfs", tmp_path, "--until", "8h", stdin=b"a cat\na\n")
    assert blind.err == ("lavolta: the charge is not known: until it is, answers come at the lowest energy.\n")


def test_a_reader_of_errors_that_is_gone_stops_nothing(
    invoke: Invoke, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone:
        def write(self, _: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

    monkeypatch.setattr("lavolta.cli.governing.sys", SimpleNamespace(stderr=Gone()))
    given = ("govern", bundle, "--deadline-ms", 1000, *SIMULATED, "--until", "1000h", "--json")
    outcome = invoke(*given, "--period-ms", 1000, "--requests", 3)
    assert (outcome.code, outcome.data["requests"]) == (0, 3)


def test_answers_come_line_by_line(invoke: Invoke, bundle: Path) -> None:
    outcome = invoke("govern", bundle, "--deadline-ms", 1000, *SIMULATED, "--lines", stdin=b"a cat\nthe dog\n")
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert [row["index"] for row in rows[:2]] == [0, 1]
    assert rows[2]["summary"]["requests"] == 2


def test_a_system_that_shows_nothing_is_served_all_the_same(invoke: Invoke, bundle: Path, tmp_path: Path) -> None:
    outcome = invoke(
        "govern", bundle, "--deadline-ms", 60_000, "--sysfs", tmp_path, "--until", "8h", "--json", stdin=b"a cat\n"
    )
    assert outcome.code == 0
    assert outcome.data["degree"] == "none"
    assert outcome.data["charge_share"] is None
    assert outcome.data["answers"][0]["in_time"]


def test_a_fuel_gauge_that_never_answers_delays_no_request(invoke: Invoke, bundle: Path, tmp_path: Path) -> None:
    battery = Sysfs(tmp_path).put("class/power_supply/BAT0", type="Battery")
    # Whoever opens it waits for a writer, as for a device on a bus that hangs.
    os.mkfifo(battery / "capacity")
    outcome = invoke(
        *("govern", bundle, "--deadline-ms", 60_000, "--sysfs", tmp_path, "--until", "8h", "--json"),
        stdin=b"a cat\nthe dog\n",
    )
    # A writer that comes and leaves lets the look that was left behind end.
    os.close(os.open(battery / "capacity", os.O_RDWR))
    assert outcome.code == 0
    assert outcome.data["requests"] == 2
    assert outcome.data["charge_share"] is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_gives_the_clock_back(bundle: Path, tmp_path: Path, number: signal.Signals) -> None:
    policy = Sysfs(tmp_path).policy(0, "0 1 2 3")
    words = ("govern", bundle, "--deadline-ms", 60_000, "--device", "odroid-xu3-a7", "--sysfs", tmp_path, "--lines")
    # Tests that run under `nohup` ignore SIGHUP, and programs inherit that.
    heard = f"import signal, sys; signal.signal({number:d}, signal.SIG_DFL)"
    program = subprocess.Popen(
        (sys.executable, "-c", f"{heard}; from lavolta.cli import main; sys.exit(main())", *map(str, words)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with program:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdin.write("a cat\n")
        program.stdin.flush()
        assert json.loads(program.stdout.readline())["degree"] == "sets"
        assert (policy / "scaling_governor").read_text().strip() == "userspace"
        program.send_signal(number)
        assert program.wait(120.0) == 128 + number
    assert (policy / "scaling_governor").read_text().strip() == "schedutil"


def test_a_profile_measured_on_another_processor_is_refused(invoke: Invoke, bundle: Path, tmp_path: Path) -> None:
    from lavolta.devices import CpuIdentity, load
    from lavolta.devices.rendering import render

    other = CpuIdentity(architecture="pdp11", parts=("dec:11:70",), model="PDP-11/70")
    path = tmp_path / "other.toml"
    path.write_text(render(load("odroid-xu3-a7").model_copy(update={"cpu": other})), encoding="utf-8")
    words = ("govern", bundle, "--deadline-ms", 60_000, "--device", path, "--sysfs", tmp_path)
    refused = invoke(*words, stdin=b"a cat\n")
    assert refused.code == 2
    assert "was measured on PDP-11/70 (dec:11:70) of pdp11; this is" in refused.err
    assert "`lavolta device profile --out FILE`" in refused.err
    # In a simulation nothing runs on that processor.
    assert invoke(*words, "--simulate", "--period-ms", 60_000, "--requests", 1).code == 0


@pytest.mark.parametrize("lines", [False, True])
def test_a_stream_without_end_is_not_kept(
    invoke: Invoke, bundle: Path, monkeypatch: pytest.MonkeyPatch, lines: bool
) -> None:
    from lavolta.runtime.governor_loop import LiveGovernor, Served

    serve, outputs = LiveGovernor.serve, []

    def watched(self: LiveGovernor, *words: object) -> Served:
        # The last answer may still be in the loop's own variable.
        assert sum(output() is not None for output in outputs[:-1]) == 0
        answer = serve(self, *words)
        outputs.append(weakref.ref(answer.output))
        return answer

    monkeypatch.setattr(LiveGovernor, "serve", watched)
    words = ("govern", bundle, "--deadline-ms", 1000, *SIMULATED, *(("--lines",) if lines else ()))
    assert invoke(*words, stdin=b"a cat\n" * 5).code == 0
    assert len(outputs) == 5


def test_a_person_reads_a_table(invoke: Invoke, bundle: Path) -> None:
    outcome = invoke("govern", bundle, "--deadline-ms", 1000, *SIMULATED, "--period-ms", 1000, "--requests", 2)
    assert "odroid-xu3-a7, simulated: due after 1000 ms" in outcome.out
    assert "Clock: sets. Mean score" in outcome.out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--until", "soon"), "--until soon is no time; write it as 8h, 90min or 45s."),
        (("--reserve", "all"), "--reserve all is no share; write it as 10% or 0.1."),
        (("--until", "0h"), "--until 0h is over at once; give a time above 0."),
        (("--reserve", "100%"), "--reserve 100% leaves nothing to spend; give less than 100%."),
        (("--json", "--lines"), "--lines and --json exclude one another"),
        ((), "there is no text; pipe in a text a line, or give --period-ms for a test load."),
    ],
)
def test_bad_options_are_one_sentence(options, sentence: str, invoke: Invoke, bundle: Path) -> None:
    outcome = invoke("govern", bundle, "--deadline-ms", 1000, *SIMULATED, *options, stdin=b"")
    assert outcome.code == 2
    assert sentence in outcome.err


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b'{"words": 1}\n', "line 1 of stdin is no JSON object with `text`"),
        (b'{"text": 1}\n', "the `text` of line 1 of stdin is no string"),
        (b"\na\xff\n", "line 2 of stdin is not UTF-8 text at byte 1; convert it to UTF-8."),
        (b"{oops\n", "line 1 of stdin is no JSON object with `text`"),
    ],
)
def test_bad_lines_are_named(line: bytes, sentence: str, invoke: Invoke, bundle: Path) -> None:
    outcome = invoke("govern", bundle, "--deadline-ms", 1000, *SIMULATED, "--json", stdin=line)
    assert (outcome.code, outcome.out) == (2, "")
    assert sentence in outcome.err


def test_a_deadline_that_no_level_keeps_is_refused(invoke: Invoke, bundle: Path) -> None:
    outcome = invoke("govern", bundle, "--deadline-ms", 1e-6, *SIMULATED, stdin=b"a cat\n")
    assert outcome.code == 2
    assert "no level meets" in outcome.err


def two_clusters(folder: Path, cpus: tuple[int, int]) -> Path:
    """A profile whose little and big cluster are one CPU each."""
    from lavolta.devices import load
    from lavolta.devices.rendering import render

    phone = load("freqbench-sm8150")
    clusters = tuple(
        cluster.model_copy(update={"cores": 1, "cpus": (cpu,)})
        for cluster, cpu in zip(phone.clusters, cpus, strict=False)
    )
    path = folder / "two.toml"
    path.write_text(render(phone.model_copy(update={"name": "two", "clusters": clusters})), encoding="utf-8")
    return path


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_the_run_goes_to_the_cores_of_the_chosen_cluster(invoke: Invoke, bundle: Path, tmp_path: Path) -> None:
    here = sorted(os.sched_getaffinity(0))
    profile = two_clusters(tmp_path, (here[0], here[1]))
    words = ("govern", bundle, "--deadline-ms", 60_000, "--device", profile, "--sysfs", tmp_path, "--json")
    found = {
        name: invoke(*words, *more, stdin=b"a cat\nthe dog\n").data["answers"]
        for name, more in (("both", ()), ("big", ("--cluster", "cortex-a76")), ("little", ("--cluster", "cortex-a55")))
    }
    assert {answer["cluster"] for answer in found["both"]} <= {"cortex-a55", "cortex-a76"}
    assert {answer["cluster"] for answer in found["big"]} == {"cortex-a76"}
    assert {answer["cluster"] for answer in found["little"]} == {"cortex-a55"}
    assert [a["output"] for a in found["big"]] == [a["output"] for a in found["little"]]
    # The caller's own cores are given back after every run.
    assert sorted(os.sched_getaffinity(0)) == here


def test_cores_that_are_not_here_leave_the_default_cluster(invoke: Invoke, bundle: Path, tmp_path: Path) -> None:
    profile = two_clusters(tmp_path, (60_000, 60_001))
    words = ("govern", bundle, "--deadline-ms", 60_000, "--device", profile, "--sysfs", tmp_path)
    served = invoke(*words, "--json", stdin=b"a cat\n")
    assert (served.code, served.data["answers"][0]["cluster"]) == (0, "cortex-a76")
    refused = invoke(*words, "--cluster", "cortex-a55", stdin=b"a cat\n")
    assert refused.code == 2
    assert "cores has 60000" in refused.err
    unknown = invoke(*words, "--cluster", "a99", stdin=b"a cat\n")
    assert (unknown.code, "no cluster 'a99'" in unknown.err) == (2, True)
    from lavolta.devices import load
    from lavolta.devices.rendering import render

    nameless = load(profile).clusters[0].model_copy(update={"cpus": None})
    profile.write_text(render(load(profile).model_copy(update={"clusters": (nameless,), "default_cluster": None})))
    silent = invoke(*words, "--cluster", "cortex-a55", stdin=b"a cat\n")
    assert (silent.code, "does not say which CPUs" in silent.err) == (2, True)


def test_a_simulated_phone_moves_between_clusters(invoke: Invoke, bundle: Path) -> None:
    words = ("govern", bundle, "--simulate", "--device", "freqbench-sm8150", "--deadline-ms", 1000)
    answers = invoke(*words, "--json", stdin=b"a cat\n").data["answers"]
    assert answers[0]["cluster"] == "cortex-a55"
    drawn = invoke(*words, stdin=b"a cat\n").out
    assert "cortex-a55" in drawn
    assert "raised" in drawn
