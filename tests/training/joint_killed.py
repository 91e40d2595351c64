"""Train a toy with a checkpoint and die by SIGKILL while the second one is being written: `joint_killed.py FILE`."""

import os
import signal
import sys
from pathlib import Path

import torch
from joint_toys import Toy, toy_ranking

from lavolta.training.joint import JointConfig, train_joint
from lavolta.training.levels import RankedLevels

torch.set_num_threads(1)
toy = Toy(dropout=0.3)
saves = 0
flush = os.fsync


def die_in_the_second(handle: int) -> None:
    global saves
    saves += 1
    if saves == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    flush(handle)


os.fsync = die_in_the_second
levels = RankedLevels(toy_ranking(), [{"a": 20}, {"a": 12}, {"a": 5}])
train_joint(toy.masked, levels, toy, toy.trainable, JointConfig(steps=8, checkpoint_every=3), Path(sys.argv[1]))
