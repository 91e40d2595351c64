"""What a request may ask, and that its answer is the model's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from serve_tools import LONG_MS, Client, ManualClock, governed_by, serving

from lavolta.errors import UserInputError
from lavolta.runtime.engine import Model, open_bundle
from lavolta.serve.bodies import read_call
from lavolta.serve.pace import RealTime
from lavolta.serve.service import Service
from tiny_bundles import write_tiny


def test_texts_pairs_and_ids_are_answered(client: Client, model: Model) -> None:
    ids = model.tokenize(["a cat sleeps"])[0][0]
    replies = [
        client.encode(text="a cat sleeps"),
        client.encode(token_ids=ids),
        client.encode(text=["a cat", "sleeps"]),
    ]
    assert [reply.status for reply in replies] == [200, 200, 200]
    answers = [reply.data for reply in replies]
    model.switch(answers[0]["level"])
    expected = model.encode(["a cat sleeps"])[0]
    for answer in answers:
        assert np.array_equal(np.float32(answer["output"]), expected)
    assert [answer["index"] for answer in answers] == [0, 1, 2]
    first = answers[0]
    assert (first["level"], first["reason"], first["tokens"]) == ("L2", "lowest energy", 3)
    assert (first["in_time"], first["kept_level"], first["truncated"]) == (True, True, False)
    assert first["deadline_ms"] == LONG_MS
    # The clock of this test stands still.
    assert (first["response_ms"], first["score"], first["threads"]) == (0.0, 0.8, 1)
    assert first["p99_ms"] >= first["predicted_ms"] > 0
    assert first["energy_mj"] > 0
    assert replies[0].headers["content-type"] == "application/json"


def test_type_ids_reach_the_model(classifier: Model, tmp_path: Path) -> None:
    clock = ManualClock()
    with (
        Service(classifier, governed_by(classifier, clock), RealTime(clock)) as service,
        serving(service, tmp_path / "s.sock") as connect,
        connect() as client,
    ):
        with_types = client.encode(token_ids=[1, 2, 3], type_ids=[0, 1, 1]).data
        without = client.encode(token_ids=[1, 2, 3]).data
        pair = client.encode(text=["a cat", "sleeps"]).data
        model = client.get("/v1/levels").data["model"]
        assert "gives 0 to 1" not in client.encode(token_ids=[1], type_ids=[2]).error[2]
        assert client.encode(token_ids=[1, 2], type_ids=[0]).error[2] == (
            '"type_ids" has 1 numbers for 2 tokens; give one a token.'
        )
    classifier.switch(with_types["level"])
    assert np.array_equal(np.float32(with_types["output"]), classifier.run([[1, 2, 3]], [[0, 1, 1]])[0])
    assert np.array_equal(np.float32(without["output"]), classifier.run([[1, 2, 3]])[0])
    assert np.array_equal(np.float32(pair["output"]), classifier.encode([("a cat", "sleeps")])[0])
    assert (model["task"], model["labels"], model["outputs"]) == ("classification", ["no", "yes"], 2)


def test_a_deadline_comes_in_the_body_or_in_a_header(client: Client) -> None:
    assert client.encode(text="a", deadline_ms=250).data["deadline_ms"] == 250.0
    assert client.post("/v1/encode", {"text": "a"}, x_deadline_ms="99.5").data["deadline_ms"] == 99.5
    twice = client.post("/v1/encode", {"text": "a", "deadline_ms": 1}, x_deadline_ms="1")
    assert twice.error == (
        422,
        "invalid-input",
        'give the deadline once: in the header x-deadline-ms or as "deadline_ms".',
    )
    for wrong in ("nan", "inf", "-1", "0", "soon", "1e99"):
        status, kind, message = client.post("/v1/encode", {"text": "a"}, x_deadline_ms=wrong).error
        assert (status, kind) == (422, "invalid-input")
        assert message.endswith("give milliseconds above 0, at most 3.6e+06.")


def test_a_text_is_cut_where_that_is_asked_for(client: Client, model: Model) -> None:
    cut = client.encode(text="a cat " * 9, truncate=True).data
    assert (cut["tokens"], cut["truncated"]) == (16, True)
    whole = client.encode(text="a cat " * 8, truncate=True).data
    assert (whole["tokens"], whole["truncated"]) == (16, False)
    model.switch(cut["level"])
    assert np.array_equal(np.float32(cut["output"]), model.encode(["a cat " * 8])[0])


def test_a_text_is_measured_by_what_the_tokenizer_truncates_to(tmp_path: Path) -> None:
    with open_bundle(write_tiny(tmp_path / "short.lavolta", text_tokens=4)) as model:
        with pytest.raises(UserInputError, match="the text has 6 tokens and the model takes 4"):
            read_call({"text": "a cat " * 3}, None, model)
        call = read_call({"text": "a cat " * 3, "truncate": True}, None, model)
        assert (len(call.request.token_ids), call.truncated) == (4, True)
        assert not read_call({"text": "a cat " * 2, "truncate": True}, None, model).truncated
        # Ids may be as long as the model.
        assert len(read_call({"token_ids": [1, 2] * 8}, None, model).request.token_ids) == 16
