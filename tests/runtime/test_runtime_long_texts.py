"""Texts of several blocks of keys: a float64 model's results, and the same bits for any threads and any batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lavolta.runtime.engine import open_bundle
from reference_model import DECODERS, random_ids, random_model, rounding

# Above one and two blocks of 128 keys and a group of 192 queries, beside a short one.
LENGTHS = (129, 3, 193, 257)


@pytest.mark.parametrize("options", [{}, DECODERS["gpt2"], DECODERS["llama"]], ids=["encoder", "gpt2", "llama"])
def test_long_texts(tmp_path: Path, options: dict[str, Any]) -> None:
    model = random_model(**{**options, "max_tokens": 300})
    path = model.write(tmp_path / "model.lavolta")
    ids = random_ids(np.random.default_rng(0), model.spec, LENGTHS)
    found = []
    for threads in (1, 3):
        with open_bundle(path, threads=threads) as engine:
            found += [engine.run(ids), np.concatenate([engine.run([sequence]) for sequence in ids])]
    for rows in found[1:]:
        np.testing.assert_array_equal(rows, found[0])
    assert np.abs(found[0] - model.run(0, ids)).max() <= rounding(model, max(LENGTHS))


def test_a_session_agrees_with_a_run_behind_a_long_context(tmp_path: Path) -> None:
    """Pieces end in the middle of a block, and one token follows them."""
    model = random_model(**{**DECODERS["llama"], "max_tokens": 300})
    ids = random_ids(np.random.default_rng(1), model.spec, [260])[0]
    with open_bundle(model.write(tmp_path / "model.lavolta")) as engine, engine.session() as session:
        expected = model.run(0, [ids])
        tolerance = rounding(model, len(ids))
        begin = 0
        for end in (1, 140, 259, 260):
            logits = session.append(ids[begin:end])
            assert np.abs(logits - expected[end - 1]).max() <= tolerance
            begin = end
