"""The command line without an engine: help, JSON, exit codes, and what is refused before any work begins."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import typer

from lavolta.cli.app import _Global, build_app
from lavolta.errors import BundleError, InfeasibleError

if TYPE_CHECKING:
    from .conftest import Invoke

NO_FORMAT = "lavolta: Invalid value for '--format': 'gguf' is not one of 'onnx', 'hf'; `lavolta export --help` shows"
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its full name."""

    def walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
        parts = getattr(command, "commands", None)
        if parts is None:
            yield path, command
            return
        for name, part in parts.items():
            yield from walk(part, f"{path} {name}".strip())

    yield from walk(typer.main.get_command(build_app(_Global())), "")


ALL = dict(commands())


def test_the_commands_are_those_of_the_promise() -> None:
    promised = [
        "compress",
        "prune",
        "export",
        "import",
        "run",
        "generate",
        "explain",
        "bench",
        "simulate",
        "govern",
        "serve",
        "monitor",
        "report",
        "demo",
    ]
    assert set(ALL) == {*promised, "device list", "device show", "device compare", "device profile", "rt3 train-lm"}


@pytest.mark.parametrize("name", ALL)
def test_every_command_has_help_with_an_example_and_json(name: str, invoke: Invoke) -> None:
    outcome = invoke(*name.split(), "--help")
    assert outcome.code == 0
    assert f"Example: lavolta {name}" in outcome.out
    assert "--json" in outcome.out
    assert outcome.err == ""


@pytest.mark.parametrize("name", ALL)
def test_every_option_is_explained(name: str) -> None:
    for parameter in ALL[name].params:
        assert getattr(parameter, "help", None), f"{name}: {parameter.name} has no help"


@pytest.mark.parametrize("name", ALL)
def test_the_reference_page_has_every_command_and_option(name: str) -> None:
    section = re.search(rf"^## `lavolta {name}`\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert section, f"{PAGE.name} has no section for lavolta {name}"
    for parameter in ALL[name].params:
        words = [option for option in parameter.opts if option.startswith("--")] or [parameter.name.upper()]
        for word in words:
            row = next((line for line in section[1].splitlines() if line.startswith(f"| `{word}` |")), "")
            assert row.endswith(f"| {parameter.help} |"), (
                f"{PAGE.name}: `lavolta {name}` lacks {word} or says another thing"
            )


def test_every_example_on_the_pages_is_a_real_command_line() -> None:
    for page in (PAGE, PAGE.parents[1] / "tutorial.md"):
        blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
        lines = [
            line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines() if "lavolta " in line
        ]
        assert lines
        for line in lines:
            words = line.split("lavolta ", 1)[1].split(" #")[0].split()
            name = " ".join(words[:2]) if words[0] in ("device", "rt3") else words[0]
            if name.startswith("-"):
                continue
            known = {option for parameter in ALL[name].params for option in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= known, line


def test_nothing_heavy_is_loaded_for_help() -> None:
    code = (
        "import sys; from lavolta.cli import main;"
        "main(['--help']); main(['compress', '--help']); main(['prune', '--help']);"
        "heavy = {'torch', 'transformers', 'numpy', 'plotly', 'optuna', 'scipy'} & set(sys.modules);"
        "print(sorted(heavy), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr.strip() == "[]"


def test_the_version(invoke: Invoke) -> None:
    import lavolta

    assert invoke("--version").out == f"lavolta {lavolta.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "out", "err"),
    [
        (["--version"], 0, "lavolta ", ""),
        (["device", "list", "--json"], 0, "[", ""),
        (["device", "show", "nothing-like-it"], 2, "", "lavolta: unknown device 'nothing-like-it'"),
        (["dance"], 2, "", "lavolta: No such command 'dance'; `lavolta --help` shows what is allowed."),
        (["export", "m.lavolta", "--out", "o", "--format", "gguf"], 2, "", NO_FORMAT),
        (["report"], 2, "", "lavolta: Missing argument"),
        (["report", "."], 2, "", "lavolta: there is no result.json; run `lavolta demo`"),
        (["report", ".", "--color"], 2, "", "lavolta: No such option: --color"),
    ],
)
def test_exit_codes_of_the_real_program(arguments: list[str], code: int, out: str, err: str, tmp_path: Path) -> None:
    start = "import sys; from lavolta.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", start, *arguments], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert done.returncode == code
    assert done.stdout.startswith(out)
    assert done.stderr.startswith(err)
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == (1 if err else 0)


@pytest.mark.parametrize("more", ["", ", '--json'"])
def test_a_reader_that_leaves_early_is_no_error(more: str) -> None:
    program = f"import sys; from lavolta.cli import main; sys.exit(main(['device', 'list'{more}]))"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", program], stdout=writing, stderr=subprocess.PIPE, timeout=60)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_devices_are_listed_and_shown(invoke: Invoke) -> None:
    from lavolta.devices import load, names

    assert [row["name"] for row in invoke("device", "list", "--json").data] == names()
    listed = invoke("device", "list").out
    assert all(name in listed for name in names())
    shown = invoke("device", "show", "odroid-xu3-a7", "--json").data
    assert [step["freq_mhz"] for step in shown["clusters"][0]["steps"]] == [
        step.freq_mhz for step in load("odroid-xu3-a7").cluster().steps
    ]
    assert "1,400" in invoke("device", "show", "odroid-xu3-a7").out


def test_a_device_is_profiled_and_the_profile_is_taken_everywhere(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lavolta.devices import load
    from lavolta.devices.identity import read_identity, require_same_cpu
    from lavolta.runtime import kernel_timing
    from lavolta.runtime.engine import instruction_sets

    sizes = ((8, 16), (16, 8), (24, 24), (32, 64), (40, 8))
    monkeypatch.setattr(kernel_timing, "SHAPES", tuple(kernel_timing.Shape(1, h, 1, f) for h, f in sizes))
    monkeypatch.setattr(kernel_timing, "_QUICK_TOKENS", (1, 5))
    path = tmp_path / "new" / "My board.toml"
    words = ("device", "profile", "--quick", "--threads", "1", "--power-s", "0", "--out", path)
    # No sysfs here: what is missing is said, and the profile is whole all the same.
    outcome = invoke(*words, "--root", tmp_path / "absent", "--json")
    assert outcome.code == 0
    assert outcome.data["name"] == "my-board"
    assert "has no cpufreq" in " ".join(outcome.data["notes"])
    assert outcome.data["fits"]["cpu"]["samples"] == outcome.data["measurements"] == 5 * 2 * 5 * 2 * 2
    assert sorted(entry.name for entry in path.parent.iterdir()) == [path.name]
    profile = load(path)
    require_same_cpu(profile, read_identity(instruction_sets()))
    assert profile.cluster().latency[0].cycles_per_kept_mac_int8 is not None
    assert "Measured on" in invoke("device", "show", path).out
    assert invoke("device", "compare", path, "odroid-xu3-a7").code == 0
    refused = invoke("device", "profile", "--out", tmp_path / "board.json")
    assert (refused.code, "a profile is a .toml file" in refused.err) == (2, True)


def test_devices_are_compared_with_a_page(invoke: Invoke, tmp_path: Path) -> None:
    page = tmp_path / "devices.html"
    outcome = invoke("device", "compare", "odroid-xu3-a7", "freqbench-sdm845", "--html", page)
    assert outcome.code == 0
    assert "kryo-385-gold" in outcome.out
    assert str(page) in outcome.out
    text = page.read_text(encoding="utf-8")
    assert "Power against clock" in text
    assert "unverified: medium" in text
    both = invoke("device", "compare", "odroid-xu3-a7", "freqbench-sdm845", "--json").data
    assert [device["name"] for device in both] == ["odroid-xu3-a7", "freqbench-sdm845"]
    # The sheet of RT3: 194 mW per core at 1400 MHz; 1.667 cycles per product in the profile.
    highest = both[0]["clusters"][0]["highest"]
    assert highest["power_mw"] == pytest.approx(194, abs=0.5)
    assert highest["speed_gmac_s"] == pytest.approx(1.4 / 1.667)
    assert highest["core_mj"] == pytest.approx(highest["power_mw"] / highest["speed_gmac_s"])
    alone = tmp_path / "one.html"
    assert invoke("device", "show", "freqbench-sm8250", "--html", alone).code == 0
    assert "Snapdragon 865" in alone.read_text(encoding="utf-8")


def test_report_writes_the_page_beside_the_result(invoke: Invoke, result: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(result), encoding="utf-8")
    outcome = invoke("report", tmp_path, "--json")
    page = Path(outcome.data["report"])
    assert page == tmp_path / "report.html"
    assert outcome.data["bytes"] == page.stat().st_size
    other = invoke("report", tmp_path / "result.json", "--out", tmp_path / "other.html")
    assert other.code == 0
    assert (tmp_path / "other.html").read_bytes() == page.read_bytes()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'{"levels": []}', b'{"levels": [{"name": "a"}]}'])
def test_a_broken_result_is_one_sentence(content: bytes, invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_bytes(content)
    outcome = invoke("report", tmp_path)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_demo_ends_with_words(recipe: ModuleType, result: dict[str, Any], invoke: Invoke, tmp_path: Path) -> None:
    outcome = invoke("demo", "--out", tmp_path / "demo")
    assert outcome.code == 0
    assert "answers 4 times as many requests in time: 400 instead of 100." in outcome.out
    assert "report.html" in outcome.out
    assert recipe.calls == [{"out": tmp_path / "demo"}]
    assert invoke("demo", "--out", tmp_path / "demo", "--json").data == result


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (InfeasibleError("no level meets 1 ms; the closest is L4."), 2, "no level meets 1 ms; the closest is L4."),
        (BundleError("io", "two\nlines"), 2, "two lines"),
        (OSError(errno.ENOSPC, "No space left on device", "m.lavolta"), 2, "cannot write m.lavolta: no space left on"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "free some space and run the same command again."),
        (
            PermissionError(errno.EACCES, "Permission denied", "/root/x"),
            2,
            "choose a place that you may read and write",
        ),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "x"), 2, "cannot use x: is a directory."),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 2, "pip install 'lavolta[compress]'"),
        (ModuleNotFoundError("no engine", name="lavolta._native"), 2, "the native engine is not built here"),
        (KeyboardInterrupt(), 130, "interrupted; finished steps are kept, so `lavolta demo --out"),
    ],
)
def test_what_goes_wrong_later_is_one_sentence_too(
    error: BaseException, code: int, sentence: str, recipe: ModuleType, invoke: Invoke, tmp_path: Path
) -> None:
    def fail(_out: Path, _progress: Any) -> None:
        raise error

    recipe.run_demo = fail  # type: ignore[attr-defined]
    outcome = invoke("demo", "--out", tmp_path)
    assert (outcome.code, outcome.out) == (code, "")
    assert sentence in outcome.err
    assert outcome.err.strip().count("\n") == 0


def test_the_interrupt_key_says_how_to_go_on(tmp_path: Path) -> None:
    program = """
import signal, sys, types
# A test run in the background of a shell inherits an ignored interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
def run_demo(out, progress):
    progress.say("working")
    sys.stdin.read()
sys.modules["lavolta.systems.rt3.demo"] = types.SimpleNamespace(run_demo=run_demo)
from lavolta.cli import main
sys.exit(main(["demo", "--out", "demo"]))
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, text=True, **pipes) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "working\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "`lavolta demo --out demo` continues" in err
    assert "Traceback" not in err


def test_debug_shows_the_traceback(recipe: ModuleType, invoke: Invoke, tmp_path: Path) -> None:
    def fail(_out: Path, _progress: Any) -> None:
        raise InfeasibleError("no level")

    recipe.run_demo = fail  # type: ignore[attr-defined]
    with pytest.raises(InfeasibleError):
        invoke("--debug", "demo", "--out", tmp_path)


def test_a_defect_of_ours_keeps_its_traceback(recipe: ModuleType, invoke: Invoke, tmp_path: Path) -> None:
    def fail(_out: Path, _progress: Any) -> None:
        raise ZeroDivisionError

    recipe.run_demo = fail  # type: ignore[attr-defined]
    with pytest.raises(ZeroDivisionError):
        invoke("demo", "--out", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--data", "absent"], "--data absent is not a folder"),
        (["--data", ".", "--epochs", "-1"], "--epochs is -1; give a number above 0."),
        (["--data", ".", "--lr", "nan"], "--lr is nan; give a number above 0."),
        (["--data", ".", "--hidden", "10", "--heads", "3"], "--hidden 10 is not a multiple of --heads 3"),
        ([], "--data"),
    ],
)
def test_train_lm_refuses_before_it_works(arguments: list[str], sentence: str, invoke: Invoke) -> None:
    outcome = invoke("rt3", "train-lm", *arguments)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert sentence in outcome.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_unwinds_what_measures_a_device(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    unwound = []

    def measure(*_: object) -> None:
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        finally:
            unwound.append(True)

    def not_asked(*_: object) -> None:
        raise AssertionError(number)

    monkeypatch.setattr("lavolta.devices.profiling.profile_device", measure)
    monkeypatch.setattr("lavolta.runtime.kernel_timing.KernelBench", contextlib.nullcontext)
    before = signal.signal(number, not_asked)
    try:
        with pytest.raises(SystemExit) as ended:
            invoke("device", "profile", "--out", tmp_path / "here.toml")
        assert (ended.value.code, unwound) == (128 + number, [True])
        assert signal.getsignal(number) is not_asked
    finally:
        signal.signal(number, before)


def test_measurements_are_kept_until_the_profile_is_written(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lavolta.devices import load
    from lavolta.devices.profiling import Profiled

    def measure(_bench: object, _name: str, journal: Path, *_: object) -> Profiled:
        journal.write_text("an hour of work")
        return Profiled(load("odroid-xu3-a7"), {}, (), 0, 0)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("lavolta.devices.profiling.profile_device", measure)
    monkeypatch.setattr("lavolta.runtime.kernel_timing.KernelBench", contextlib.nullcontext)
    out, journal = tmp_path / "here.toml", tmp_path / "here.toml.journal"
    words = ("device", "profile", "--out", out, "--json")
    with monkeypatch.context() as patched:
        patched.setattr("lavolta.files.write_whole", full)
        assert invoke(*words).code == 2
    assert journal.exists()
    assert invoke(*words).code == 0
    assert load(out).name == "odroid-xu3-a7"
    assert not journal.exists()
    out.unlink()
    out.mkdir()
    refused = invoke(*words)
    assert (refused.code, f"--out {out} is a folder" in refused.err, journal.exists()) == (2, True, False)
