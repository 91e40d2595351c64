"""Train a pruned toy and die by SIGKILL while a checkpoint is being written: `sparse_killed.py FILE KIND WHICH`."""

import os
import signal
import sys
from pathlib import Path

import torch
from sparse_toys import Toy

torch.set_num_threads(1)
saves = 0
flush = os.fsync


def die(handle: int) -> None:
    global saves
    saves += 1
    if saves == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    flush(handle)


os.fsync = die
Toy(sys.argv[2]).train(Path(sys.argv[1]))
