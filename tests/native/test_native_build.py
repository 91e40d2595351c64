"""The C library and the sanitized reader, built as a stranger would build them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from native_programs import ROOT, build
from reference_model import DECODERS, random_ids, random_model

MUTATIONS = 6000

pytestmark = pytest.mark.slow


def test_c_example_compiles_with_one_line_and_equals_python(tmp_path: Path) -> None:
    """The example prints nine digits, which identify a float."""
    built = build(ROOT / "build" / "shared", ("lavolta",), "-DLAVOLTA_SHARED=ON")
    example = ROOT / "native" / "examples" / "run.c"
    program = tmp_path / "run"
    line = ["cc", "-Wall", "-Werror", str(example), f"-I{ROOT / 'native' / 'include'}", f"-L{built}", "-llavolta"]
    subprocess.run([*line, "-o", str(program)], check=True)
    model = random_model()
    path = model.write(tmp_path / "model.lavolta")
    ids = random_ids(np.random.default_rng(0), model.spec, [17])
    command = [str(program), str(path), *map(str, ids[0])]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(built)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    from lavolta.runtime.engine import open_bundle

    lines = done.stdout.splitlines()
    assert len(lines) == model.levels
    with open_bundle(path) as engine:
        for level, text in enumerate(lines):
            engine.switch(level)
            printed = np.array(text.split(":")[1].split(), dtype=np.float32)
            assert (printed == engine.run(ids)[0]).all()
    refused = subprocess.run([str(program), str(example), "1"], capture_output=True, text=True, env=environment)
    assert refused.returncode == 2
    assert "header-too-large" in refused.stderr


@pytest.mark.parametrize("decoder", [False, True])
def test_no_mutation_of_a_bundle_breaks_the_reader(tmp_path: Path, decoder: bool) -> None:
    """Thousands of damaged bundles under address and undefined-behavior sanitizers, which end it at any defect."""
    options = ["-DLAVOLTA_SANITIZE=address,undefined", "-DCMAKE_BUILD_TYPE=None", "-DCMAKE_CXX_FLAGS=-O1"]
    built = build(ROOT / "build" / "sanitize", ("mutate_bundle",), *options)
    tiny = {"layers": 1, "hidden": 4, "heads": 2, "ffn": 5, "vocab": 3, "max_tokens": 2, "outputs": 2, "cell_rows": 2}
    options_of = {**DECODERS["llama"], "kv_heads": 1} if decoder else {"head_dense": "tanh"}
    model = random_model(**{**options_of, **tiny})
    path = model.write(tmp_path / "model.lavolta", tokenizer_json=b"{}")
    command = [str(built / "mutate_bundle"), str(path), str(MUTATIONS), "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    counts = {name: int(times) for name, times in (line.split() for line in done.stdout.splitlines())}
    assert sum(counts.values()) == MUTATIONS + 1
    # The mutations reach behind the header: they are refused for many reasons, and some are harmless.
    assert {"ok", "truncated", "header-not-json", "offsets-invalid", "index-out-of-range", "not-finite"} <= set(counts)


def test_the_thread_pool_has_no_race() -> None:
    options = ["-DLAVOLTA_SANITIZE=thread", "-DCMAKE_BUILD_TYPE=None", "-DCMAKE_CXX_FLAGS=-O1"]
    built = build(ROOT / "build" / "sanitize-thread", ("pool_test",), *options)
    done = subprocess.run([str(built / "pool_test")], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
