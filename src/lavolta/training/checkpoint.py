"""Checkpoints of a training run: whole or absent, with a digest of their content and a mark of the run."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from lavolta.errors import UserInputError
from lavolta.files import make_folder, write_whole

DIGEST_BYTES = 32


def save_checkpoint(path: Path, mark: str, state: dict[str, Any]) -> None:
    """A digest of 32 bytes, then what torch saves: no damage to the file can pass for weights.

    Args:
        mark: names the run, so that no other run continues from here.
        state: tensors, plain values, and lists and dictionaries of them.

    Raises:
        UserInputError: the file cannot be written; the one before it stays.
    """
    # Through memory: writing by itself, torch hides a full disk behind an error of its own.
    buffer = io.BytesIO()
    torch.save({"mark": mark, **state}, buffer)
    content = buffer.getbuffer()
    make_folder(path.parent)
    write_whole(path, hashlib.sha256(content).digest(), content)


def load_checkpoint(path: Path, mark: str) -> dict[str, Any]:
    """What `save_checkpoint` wrote, on the CPU.

    Raises:
        UserInputError: the file is damaged, cannot be read, or belongs to another run.
    """
    try:
        stored = path.read_bytes()
    except OSError as error:
        raise UserInputError(f"the checkpoint {path} cannot be read: {error.strerror}; delete it.") from error
    content = memoryview(stored)[DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != stored[:DIGEST_BYTES]:
        raise UserInputError(f"the checkpoint {path} is damaged or of another version; delete it to start anew.")
    state: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    if state["mark"] != mark:
        raise UserInputError(
            f"the checkpoint {path} was made with another configuration or model; delete it or use the same options."
        )
    return state
