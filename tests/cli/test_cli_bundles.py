"""`run`, `explain` and `simulate` on tiny bundles, through the native engine."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import lavolta

if TYPE_CHECKING:
    from .conftest import Invoke


def test_run_gives_the_engine_s_own_numbers(invoke: Invoke, bundle: Path) -> None:
    outcome = invoke("run", bundle, "--level", "L2", "--text", "a cat sleeps", "--text", "the dog", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    with lavolta.open(bundle) as model:
        model.switch("L2")
        for answer in outcome.data["answers"]:
            expected = model.encode([answer["text"]])[0]
            assert np.array_equal(np.float32(answer["output"]), expected)
    assert outcome.data["level"] == "L2"
    assert outcome.data["latency_ms"] > 0


@pytest.mark.parametrize(("given", "name"), [("0", "L0"), ("2", "L2"), ("L1", "L1")])
def test_a_level_has_a_name_and_a_number(given: str, name: str, invoke: Invoke, bundle: Path) -> None:
    assert invoke("run", bundle, "--level", given, "--text", "a cat", "--json").data["level"] == name


def test_without_a_level_the_densest_answers(invoke: Invoke, bundle: Path) -> None:
    assert invoke("run", bundle, "--text", "a cat", "--json").data["level"] == "L0"


def test_lines_of_standard_input_are_texts(invoke: Invoke, bundle: Path) -> None:
    outcome = invoke("run", bundle, "--json", stdin=b"a cat\n\n  \nthe dog\n")
    assert [answer["text"] for answer in outcome.data["answers"]] == ["a cat", "the dog"]


def test_a_generous_limit_takes_the_densest_level(invoke: Invoke, bundle: Path) -> None:
    outcome = invoke("run", bundle, "--max-latency-ms", 1e6, "--text", "a cat", "--json")
    assert outcome.data["level"] == "L0"


def test_a_limit_that_no_level_keeps_names_the_closest(invoke: Invoke, bundle: Path) -> None:
    outcome = invoke("run", bundle, "--max-latency-ms", 1e-9, "--text", "a cat")
    assert outcome.code == 2
    assert outcome.out == ""
    assert "no level answers the longest text (2 tokens) within 1e-09 ms here; the closest is L" in outcome.err


def test_a_generous_deadline_is_met_at_the_level_that_is_set(invoke: Invoke, bundle: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    texts = ["--text", "a cat", "--text", "the dog"]
    command = ["run", bundle, "--level", "L1", "--deadline-ms", 1e6, "--plan", plan, *texts]
    first = invoke(*command, "--json")
    assert (first.code, first.err) == (0, "")
    assert first.data["met"] == 2
    for answer in first.data["answers"]:
        assert set(answer["layer_levels"]) == {"L1"}
        assert answer["met"] is True
    kept = plan.read_bytes()
    assert b"lavolta-plan" in kept
    second = invoke(*command)
    assert "2 of 2 within 1e+06 ms" in " ".join(second.out.split())
    assert plan.read_bytes() == kept


def test_a_deadline_that_nothing_keeps_is_answered_late_at_the_sparsest(invoke: Invoke, bundle: Path) -> None:
    outcome = invoke("run", bundle, "--deadline-ms", 1e-9, "--text", "a cat", "--json")
    assert outcome.code == 0
    assert outcome.data["met"] == 0
    assert set(outcome.data["answers"][0]["layer_levels"]) == {"L2"}


def test_a_plan_that_is_none_is_refused(invoke: Invoke, bundle: Path, tmp_path: Path) -> None:
    broken = tmp_path / "plan.json"
    broken.write_text("{}")
    outcome = invoke("run", bundle, "--deadline-ms", 5, "--plan", broken, "--text", "a")
    assert (outcome.code, outcome.out) == (2, "")
    assert "the plan is invalid: its 'kind' is not 'lavolta-plan'" in outcome.err
    assert broken.read_text() == "{}"


def test_a_classifier_names_its_label(invoke: Invoke, classifier: Path) -> None:
    outcome = invoke("run", classifier, "--text", "a cat sleeps\tthe dog rests", "--json")
    (answer,) = outcome.data["answers"]
    assert answer["text"] == "a cat sleeps | the dog rests"
    with lavolta.open(classifier) as model:
        logits = model.encode([("a cat sleeps", "the dog rests")])[0].astype(float)
    assert answer["label"] == ["no", "yes"][int(np.argmax(logits))]
    assert answer["probability"] == pytest.approx(1 / (1 + math.exp(-abs(logits[0] - logits[1]))))


def test_a_language_model_names_likely_words(invoke: Invoke, language_model: Path) -> None:
    outcome = invoke("run", language_model, "--text", "a cat", "--json")
    (answer,) = outcome.data["answers"]
    assert len(answer["next"]) == 5
    shares = [word["probability"] for word in answer["next"]]
    assert shares == sorted(shares, reverse=True)
    with lavolta.open(language_model) as model:
        logits = model.encode(["a cat"])[1]
    words = ("<unk>", "<eos>", "a", "cat", "dog", "sleeps")
    assert answer["next"][0]["word"] == words[int(np.argmax(logits))]
    refused = invoke("run", language_model, "--text", "a cat\tthe dog")
    assert (refused.code, "a language model takes single texts" in refused.err) == (2, True)
    longest = invoke("run", language_model, "--text", " ".join(["dog"] * 500 + ["a", "cat"]), "--json")
    assert longest.code == 0


def test_people_get_a_table(
    invoke: Invoke, bundle: Path, classifier: Path, regressor: Path, language_model: Path
) -> None:
    for path, head in (
        (bundle, "cosine to the first"),
        (classifier, "probability"),
        (regressor, "value"),
        (language_model, "likely next words"),
    ):
        outcome = invoke("run", path, "--text", "a cat", "--text", "[red]dog[/red]")
        assert outcome.code == 0
        assert head in outcome.out
        assert "[red]dog[/red]" in outcome.out


def test_the_five_lines_of_the_tutorial_run(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parents[2] / "docs" / "tutorial.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    asked: dict[str, object] = {}
    monkeypatch.setattr(lavolta, "compress", lambda source, **options: asked.update(options, source=source))
    bundle.rename(bundle.parent / "my.lavolta")
    monkeypatch.chdir(bundle.parent)
    names: dict[str, Any] = {}
    exec(code, names)
    assert asked["out"] == "my.lavolta"
    assert names["dense"].shape == names["sparse"].shape == (1, 6)
    assert not np.array_equal(names["dense"], names["sparse"])


@pytest.mark.parametrize("tokens", ["0", "1", "16"])
def test_explain_has_every_step_of_every_level(tokens: str, invoke: Invoke, bundle: Path) -> None:
    outcome = invoke("explain", bundle, "--tokens", tokens, "--json")
    assert outcome.code == 0
    with lavolta.open(bundle) as model:
        assert len(outcome.data["steps"]) == len(model.explain())
    measured = [step["measured_ms"] for step in outcome.data["steps"]]
    assert (measured == [None] * len(measured)) == (tokens == "0")
    table = invoke("explain", bundle)
    assert all(word in table.out for word in ("L0", "L1", "L2", "kernel", "query", "Why these kernels", "the fastest"))
    # A time that was not measured has no sum.
    assert ("linear layers" in invoke("explain", bundle, "--tokens", tokens).out) == (tokens != "0")


def test_explain_measures_what_the_model_takes(invoke: Invoke, bundle: Path) -> None:
    assert invoke("explain", bundle, "--json").data["tokens"] == 16


def test_explain_refuses_more_tokens_than_the_model_takes(invoke: Invoke, bundle: Path) -> None:
    outcome = invoke("explain", bundle, "--tokens", 17)
    assert outcome.code == 2
    assert "--tokens is 17; this model takes at most 16." in outcome.err


def test_simulate_compares_all_policies(invoke: Invoke, bundle: Path) -> None:
    outcome = invoke("simulate", bundle, "--deadline-ms", 50, "--json")
    assert outcome.code == 0
    assert list(outcome.data["policies"]) == ["no-reconfiguration", "hardware-only", "rt3", "lavolta"]
    ours, base = (outcome.data["policies"][name] for name in ("lavolta", "no-reconfiguration"))
    assert outcome.data["improvement"] == pytest.approx(ours["on_time"] / base["on_time"])
    assert ours["deadline_misses"] == 0
    assert outcome.data["period_ms"] == 50
    assert "no reconfiguration" in outcome.data["baseline"]
    assert "no reconfiguration" in invoke("simulate", bundle, "--deadline-ms", 50).out


def test_a_day_is_compared_and_drawn(invoke: Invoke, bundle: Path, tmp_path: Path) -> None:
    page = tmp_path / "day.html"
    given = ("simulate", bundle, "--deadline-ms", 50, "--period-ms", 120_000, "--day", "--charge", 0.065)
    data = invoke(*given, "--report", page, "--json").data
    names = {name.partition(":")[0] for name in data["policies"]}
    assert names == {"no-reconfiguration", "hardware-only", "ondemand", "schedutil", "ztt-like", "rt3", "lavolta"}
    ours = data["policies"]["lavolta"]
    # 0.065 x 11100 mWh is just what a day of idling takes (720 mWh): ours lasts the day.
    assert (ours["ended"], ours["deadline_misses"]) == ("arrivals", 0)
    assert 600 < ours["inferences"] < 850
    assert "a day from 6.5 % of a charge" in page.read_text(encoding="utf-8")
    assert data["policies"] == invoke(*given, "--json").data["policies"]
    assert data["policies"] != invoke(*given, "--seed", 1, "--json").data["policies"]
    assert "One day of odroid-xu3-a7: a request every 120000 ms on average" in invoke(*given).out


def test_a_charge_can_begin_lower(invoke: Invoke, bundle: Path) -> None:
    full, half = (
        invoke("simulate", bundle, "--deadline-ms", 50, "--charge", share, "--json").data["policies"]["lavolta"]
        for share in (1.0, 0.5)
    )
    assert half["inferences"] == pytest.approx(full["inferences"] / 2, abs=1)


def test_simulate_takes_chosen_policies_in_their_order(invoke: Invoke, bundle: Path) -> None:
    chosen = ["--policy", "rt3", "--policy", "hardware-only", "--policy", "rt3"]
    outcome = invoke(
        "simulate", bundle, "--deadline-ms", 50, "--period-ms", 70, *chosen, "--power", "whole-board", "--json"
    )
    assert list(outcome.data["policies"]) == ["rt3", "hardware-only"]
    page = bundle.parent / "page.html"
    assert invoke("simulate", bundle, "--deadline-ms", 50, *chosen, "--report", page).code == 0
    drawn = page.read_text(encoding="utf-8")
    # Neither is ours.
    assert "our policy" not in drawn.lower()
    assert "without reconfiguration" not in drawn
    assert outcome.data["improvement"] is None
    assert "whole board" in outcome.data["power"]


def test_longer_requests_cost_more(invoke: Invoke, bundle: Path) -> None:
    few, many = (
        invoke("simulate", bundle, "--deadline-ms", 50, "--tokens", tokens, "--json").data["policies"]["lavolta"]
        for tokens in (1, 16)
    )
    assert few["inferences"] > many["inferences"]


def test_a_deadline_that_no_level_meets_names_the_closest(invoke: Invoke, bundle: Path) -> None:
    outcome = invoke("simulate", bundle, "--deadline-ms", 0.0001, "--policy", "lavolta")
    assert outcome.code == 2
    assert outcome.out == ""
    assert "closest" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "{bundle}", "--level", "L9", "--text", "a"], "there is no level 'L9'; the bundle has L0, L1, L2."),
        (["run", "{bundle}", "--level", "3", "--text", "a"], "there is no level 3; the bundle has levels 0 to 2."),
        (["run", "{bundle}", "--level", "0", "--max-latency-ms", "5"], "exclude one another"),
        (["run", "{bundle}", "--deadline-ms", "5", "--max-latency-ms", "5"], "exclude one another"),
        (["run", "{bundle}", "--deadline-ms", "nan"], "--deadline-ms is nan; give a number above 0."),
        (["run", "{bundle}", "--plan", "p.json"], "--plan is for --deadline-ms; give both, or neither."),
        (["run", "{bundle}", "--max-latency-ms", "nan"], "--max-latency-ms is nan; give a number above 0."),
        (["run", "{bundle}", "--text", " "], "there is no text, only white space"),
        (["run", "{bundle}"], "there is no text, only white space"),
        (["run", "{bundle}", "--threads", "0", "--text", "a"], "--threads"),
        (["simulate", "{bundle}", "--deadline-ms", "-1"], "--deadline-ms is -1; give a number above 0."),
        (["simulate", "{bundle}", "--deadline-ms", "inf"], "--deadline-ms is inf; give a number above 0."),
        (["simulate", "{bundle}", "--deadline-ms", "9", "--period-ms", "0"], "--period-ms is 0"),
        (["simulate", "{bundle}", "--deadline-ms", "9", "--policy", "luck"], "unknown policy 'luck'; choose one of"),
        (["simulate", "{bundle}", "--deadline-ms", "9", "--device", "odroid"], "unknown device 'odroid'; the closest"),
        (["simulate", "{bundle}", "--deadline-ms", "9", "--tokens", "17"], "17 tokens do not fit tiny; give 1 to 16."),
        (["simulate", "{bundle}"], "--deadline-ms"),
        (["simulate", "{bundle}", "--deadline-ms", "9", "--day", "--policy", "rt3"], "--day compares all policies"),
        (["simulate", "{bundle}", "--deadline-ms", "9", "--day", "--noise", "1"], "a noise of 1.0 is outside"),
        (["simulate", "{bundle}", "--deadline-ms", "9", "--charge", "2"], "a charge of 2.0 is outside"),
        (["simulate", "{bundle}", "--deadline-ms", "9", "--day", "--period-ms", "0.001"], "is too short: one alone"),
    ],
)
def test_a_wrong_value_is_one_sentence(arguments: list[str], sentence: str, invoke: Invoke, bundle: Path) -> None:
    outcome = invoke(*(argument.replace("{bundle}", str(bundle)) for argument in arguments))
    assert outcome.code == 2
    assert outcome.out == ""
    assert sentence in outcome.err
    assert outcome.err.startswith("lavolta: ")
    assert outcome.err.count("\n") == 1


def test_standard_input_that_is_not_utf8_is_named(invoke: Invoke, bundle: Path) -> None:
    outcome = invoke("run", bundle, stdin=b"caf\xe9\n")
    assert outcome.code == 2
    assert "the input is not UTF-8 text at byte 3" in outcome.err


@pytest.mark.parametrize("command", [["run", "--text", "a"], ["explain"], ["simulate", "--deadline-ms", "9"]])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "noise", "folder"])
def test_a_broken_bundle_is_one_sentence(damage: str, command: list[str], invoke: Invoke, bundle: Path) -> None:
    content = bundle.read_bytes()
    bundle.unlink()
    if damage == "folder":
        bundle.mkdir()
    elif damage != "missing":
        bundle.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "noise": b"\xff" * 999}[damage])
    outcome = invoke(command[0], bundle, *command[1:])
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("lavolta: ")
    assert bundle.name in outcome.err
    assert outcome.err.count("\n") == 1
