"""Ten thousand requests of several clients while operators switch the level: none lost, none doubled, none wrong."""

from __future__ import annotations

import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from serve_tools import governed_by, serving

from lavolta.runtime.engine import Model
from lavolta.serve.pace import RealTime
from lavolta.serve.service import Service

REQUESTS, CLIENTS = 10_000, 8
SEQUENCES = 40


@pytest.mark.slow
def test_no_answer_is_lost_or_wrong_under_concurrent_switches(model: Model, tmp_path: Path) -> None:
    chance = np.random.default_rng(7)
    texts = [chance.integers(0, model.spec.vocab, 1 + place % 16).tolist() for place in range(SEQUENCES)]
    expected = {}
    for level in model.levels:
        model.switch(level)
        for place, ids in enumerate(texts):
            expected[level, place] = model.run([ids])[0].tolist()
    with Service(model, governed_by(model, time.monotonic), RealTime(time.monotonic)) as service:
        path = tmp_path / "s.sock"
        with serving(service, path) as connect:
            done = threading.Event()

            def operate() -> int:
                pick, switches = random.Random(1), 0
                with connect() as client:
                    while not done.is_set():
                        level = pick.choice([*model.levels, None])
                        assert client.post("/v1/level", {"level": level}).status == 200
                        switches += 1
                return switches

            def ask(number: int) -> list[tuple[int, str]]:
                found = []
                pick = random.Random(number)
                bodies = [json.dumps({"token_ids": ids}).encode() for ids in texts]
                with connect() as client:
                    for _ in range(REQUESTS // CLIENTS):
                        place = pick.randrange(SEQUENCES)
                        reply = client.ask("POST", "/v1/encode", bodies[place])
                        assert reply.status == 200, reply.body
                        answer = reply.data
                        # Bit for bit: JSON keeps every digit of a number.
                        assert answer["output"] == expected[answer["level"], place]
                        assert answer["kept_level"]
                        found.append((answer["index"], answer["level"]))
                return found

            with ThreadPoolExecutor(CLIENTS + 1) as pool:
                operator = pool.submit(operate)
                try:
                    answers = [pair for each in pool.map(ask, range(CLIENTS)) for pair in each]
                finally:
                    done.set()
                assert operator.result() > 100
        totals = service.recorder.totals()
    assert sorted(index for index, _ in answers) == list(range(REQUESTS))
    assert {level for _, level in answers} == set(model.levels)
    assert (totals.answers, totals.late) == (REQUESTS, 0)
    assert totals.levels == {name: sum(level == name for _, level in answers) for name in model.levels}
    assert set(totals.refused.values()) == {0}
