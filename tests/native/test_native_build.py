"""The C library and the sanitized reader, built as a stranger would build them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lavolta.runtime.engine import open_bundle
from native_programs import ROOT, build, find_cmake
from reference_model import DECODERS, random_ids, random_model

MUTATIONS = 6000
EXAMPLE = ROOT / "native" / "examples" / "run.c"
SANITIZED = ("-DCMAKE_BUILD_TYPE=None", "-DCMAKE_CXX_FLAGS=-O1")
FAMILIES: dict[str, dict[str, Any]] = {
    "encoder": {"precision": "mixed", "outputs": 3, "head_dense": "tanh"},
    "decoder": DECODERS["llama"],
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installed library, moved after its installation."""
    built = build(ROOT / "build" / "shared", ("lavolta",), "-DLAVOLTA_SHARED=ON", "-DCMAKE_INSTALL_LIBDIR=lib")
    folder = tmp_path_factory.mktemp("prefix")
    command = [find_cmake(), "--install", str(built), "--prefix", str(folder / "first")]
    subprocess.run(command, check=True, capture_output=True)
    return (folder / "first").rename(folder / "moved")


def by_one_line(prefix: Path, folder: Path) -> None:
    flags = [f"-I{prefix}/include", f"-L{prefix}/lib", f"-Wl,-rpath,{prefix}/lib", "-llavolta"]
    subprocess.run(
        ["cc", "-Wall", "-Wextra", "-Werror", "-pedantic", str(EXAMPLE), *flags, "-o", "run"], check=True, cwd=folder
    )


def by_pkg_config(prefix: Path, folder: Path) -> None:
    if not shutil.which("pkg-config"):
        pytest.skip("no pkg-config")
    environment = {**os.environ, "PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")}
    query = ["pkg-config", "--cflags", "--libs", "lavolta >= 0.1"]
    flags = subprocess.run(query, check=True, capture_output=True, text=True, env=environment).stdout.split()
    subprocess.run(["cc", str(EXAMPLE), *flags, f"-Wl,-rpath,{prefix}/lib", "-o", "run"], check=True, cwd=folder)


def by_cmake(prefix: Path, folder: Path) -> None:
    (folder / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(example LANGUAGES C)\nfind_package(lavolta 0.1 REQUIRED)\n"
        f"add_executable(run {EXAMPLE})\ntarget_link_libraries(run PRIVATE lavolta::lavolta)\n"
    )
    configure = ["-S", str(folder), "-B", str(folder), f"-DCMAKE_PREFIX_PATH={prefix}"]
    for command in (configure, ["--build", str(folder)]):
        subprocess.run([find_cmake(), *command], check=True, capture_output=True)


@pytest.mark.parametrize("way", [by_one_line, by_pkg_config, by_cmake])
def test_the_c_example_builds_from_an_installed_prefix_and_equals_python(
    prefix: Path, tmp_path: Path, way: Callable[[Path, Path], None]
) -> None:
    """The example prints nine digits, which identify a float."""
    way(prefix, tmp_path)
    program = tmp_path / "run"
    model = random_model()
    path = model.write(tmp_path / "model.lavolta")
    ids = random_ids(np.random.default_rng(0), model.spec, [17])
    command = [str(program), str(path), *map(str, ids[0])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert len(lines) == model.levels
    with open_bundle(path) as engine:
        for level, text in enumerate(lines):
            engine.switch(level)
            printed = np.array(text.split(":")[1].split(), dtype=np.float32)
            assert (printed == engine.run(ids)[0]).all()
    refused = subprocess.run([str(program), str(EXAMPLE), "1"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "header-too-large" in refused.stderr


def test_the_documented_line_is_the_tested_one() -> None:
    line = "-IPREFIX/include -LPREFIX/lib -Wl,-rpath,PREFIX/lib -llavolta -o run"
    for page in (EXAMPLE, ROOT / "docs" / "reference" / "c-api.md"):
        text = page.read_text()
        assert line in text
        assert "$(pkg-config --cflags --libs lavolta)" in text


@pytest.mark.parametrize("decoder", [False, True])
def test_no_mutation_of_a_bundle_breaks_the_reader(tmp_path: Path, decoder: bool) -> None:
    """Thousands of damaged bundles under address and undefined-behavior sanitizers, which end it at any defect."""
    built = build(ROOT / "build" / "sanitize", ("mutate_bundle",), "-DLAVOLTA_SANITIZE=address,undefined", *SANITIZED)
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
    built = build(ROOT / "build" / "sanitize-thread", ("pool_test",), "-DLAVOLTA_SANITIZE=thread", *SANITIZED)
    done = subprocess.run([str(built / "pool_test")], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("folder", "sanitizers", "rounds"),
    [("sanitize-thread", "thread", 40), ("sanitize", "address,undefined", 80)],
    ids=["thread", "address"],
)
def test_whole_models_under_switches_cancels_and_threads(
    tmp_path: Path, family: str, folder: str, sanitizers: str, rounds: int
) -> None:
    built = build(ROOT / "build" / folder, ("model_test",), f"-DLAVOLTA_SANITIZE={sanitizers}", *SANITIZED)
    path = random_model(**FAMILIES[family]).write(tmp_path / "model.lavolta")
    command = [str(built / "model_test"), str(path), str(rounds), "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
