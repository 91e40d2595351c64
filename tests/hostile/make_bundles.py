"""Broken bundles, one or more per kind of error: every reader, in any language, must name the kind.

As a script it writes them to a folder: ``python tests/hostile/make_bundles.py DIR`` makes ``<kind>.<what>.lavolta`` for
every reader, ``strict.<kind>.<what>.lavolta`` for readers that check more than the engine needs, ``valid.lavolta`` (an
encoder) and ``valid-decoder.lavolta``. The ``broken_*.py`` beside it say what is broken, a file for each part.
"""

from __future__ import annotations

import sys
import tempfile
from copy import deepcopy
from pathlib import Path

import broken_decoders
import broken_linears
import broken_manifests
import broken_tensors
from broken_bytes import broken_bytes
from bundle_parts import Parts, build, take_apart
from valid_bundles import write_tiny

ENCODER_CHANGES = (broken_manifests.CHANGES, broken_tensors.CHANGES, broken_linears.CHANGES)
DECODER_CHANGES = (broken_decoders.CHANGES,)


def hostile_bundles() -> dict[str, bytes]:
    """Name to bytes of every broken file; the first word (the second after ``strict.``) is the kind of its error."""
    encoder, decoder = _valid_parts(decoder=False), _valid_parts(decoder=True)
    files = broken_bytes(encoder)
    for valid, tables in ((encoder, ENCODER_CHANGES), (decoder, DECODER_CHANGES)):
        for changes in tables:
            for name, change in changes.items():
                # A name that two tables use would lose a file.
                assert name not in files, name
                changed = deepcopy(valid)
                change(changed)
                files[name] = build(changed.header, changed.manifest, changed.tensors)
    return files


def _valid_parts(*, decoder: bool) -> Parts:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "valid.lavolta"
        write_tiny(path, decoder=decoder)
        return take_apart(path.read_bytes())


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_tiny(folder / "valid.lavolta")
    write_tiny(folder / "valid-decoder.lavolta", decoder=True)
    for name, data in hostile_bundles().items():
        (folder / f"{name}.lavolta").write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
