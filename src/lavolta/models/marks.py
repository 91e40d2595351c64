"""Marks of what a run starts from: equal content has an equal mark, whatever the files' names and times."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from lavolta.errors import UserInputError
from lavolta.models.hf_files import find_model
from lavolta.models.own_tasks import COLUMNS
from lavolta.models.tasks import TaskData


def model_mark(source: str) -> str:
    """A digest of the files of a model's folder; of its name where it is in the cache of transformers.

    Raises:
        UserInputError: a file cannot be read.
    """
    digest = hashlib.sha256(source.encode())
    folder = Path(find_model(source))
    files = sorted([*folder.glob("*"), *folder.glob("*/config.json")]) if folder.is_dir() else []
    try:
        for file in files:
            if file.is_file():
                digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    except OSError as error:
        raise UserInputError(f"{error.filename} cannot be read: {error.strerror}; check the path.") from error
    return digest.hexdigest()


def task_mark(task: TaskData) -> str:
    """A digest of a task's training and development rows and of the names of its classes."""
    rows = [[split.first, split.second, split.labels.tolist()] for split in (task.train, task.dev)]
    # The classes of the GLUE tasks follow from their names.
    own = [task.labels] if task.name in COLUMNS else []
    return hashlib.sha256(json.dumps([task.name, rows, *own]).encode()).hexdigest()
