"""A run that another thread ends."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from lavolta.errors import CancelledError
from lavolta.runtime.engine import open_bundle
from reference_model import random_ids, random_model


def test_cancel_ends_the_run_and_the_model_stays_usable(tmp_path: Path) -> None:
    model = random_model(max_tokens=600)
    # Several passes, so that a cancelled run may have written the rows of the first ones.
    ids = random_ids(np.random.default_rng(0), model.spec, [600, 600, 600])
    with open_bundle(model.write(tmp_path / "model.lavolta")) as engine:
        expected = engine.run(ids)
        for _ in range(3):
            sentences: list[str] = []
            started = threading.Event()

            def work(sentences: list[str] = sentences, started: threading.Event = started) -> None:
                started.set()
                while not sentences:
                    try:
                        assert (engine.run(ids) == expected).all()
                    except CancelledError as error:
                        sentences.append(str(error))

            thread = threading.Thread(target=work)
            thread.start()
            started.wait()
            while thread.is_alive():
                engine.cancel()
            thread.join()
            layer = int(sentences[0].split("before layer ")[1].split(";")[0])
            assert 0 <= layer < model.spec.layers
            assert (engine.run(ids) == expected).all()


def test_cancel_without_a_run_does_nothing(tmp_path: Path) -> None:
    model = random_model()
    with open_bundle(model.write(tmp_path / "model.lavolta")) as engine:
        engine.cancel()
        assert np.isfinite(engine.run([[1, 2, 3]])).all()
