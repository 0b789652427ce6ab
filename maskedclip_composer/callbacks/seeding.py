"""Make every step's random numbers a function of the step alone."""

import numpy as np
import torch
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist


class StepSeeding(Callback):
    """Seed torch from (seed, batch, rank) when a batch starts, so that dropout and masks are the same after a resume.

    Composer 0.32.1 does not restore the generators when it resumes amid an epoch of a StreamingDataset.

    Args:
        seed: The run's seed.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def batch_start(self, state: State, logger: Logger) -> None:
        """Seed the generators of the CPU and of all CUDA devices."""
        entropy = [self.seed, state.timestamp.batch.value, dist.get_global_rank()]
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))
