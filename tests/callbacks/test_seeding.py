from pathlib import Path

import torch
from composer.core import Callback, State
from composer.loggers import Logger

from maskedclip_composer.callbacks.config import TrackingConfig
from tests.callbacks.tiny import make_trainer, run

QUIET = TrackingConfig(mlflow=False, picture_interval=None)


class Draws(Callback):
    """Draw where a model would, after seeding; `interrupt_after` stops the run as a user would."""

    def __init__(self, interrupt_after: int | None = None):
        self.interrupt_after = interrupt_after
        self.values: dict[int, float] = {}

    def before_forward(self, state: State, logger: Logger) -> None:
        self.values[state.timestamp.batch.value] = torch.rand(()).item()

    def batch_checkpoint(self, state: State, logger: Logger) -> None:
        if state.timestamp.batch.value == self.interrupt_after:
            state.stop_training()


def test_draws_of_a_run_resumed_amid_an_epoch_are_those_of_an_uninterrupted_one(tmp_path: Path):
    whole, first, second = Draws(), Draws(interrupt_after=4), Draws()
    run(make_trainer(tmp_path / "whole", QUIET, callbacks=(whole,))[0])
    run(make_trainer(tmp_path / "parts", QUIET, callbacks=(first,), save=True)[0])
    torch.manual_seed(99)  # a new process would not be in the same state either
    run(make_trainer(tmp_path / "parts", QUIET, callbacks=(second,), save=True)[0])

    assert sorted(first.values) == [0, 1, 2, 3]
    assert sorted(second.values) == [4, 5]
    assert first.values | second.values == whole.values
    assert len(set(whole.values.values())) == 6
