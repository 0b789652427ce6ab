import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from composer.core import State
from composer.loggers import Logger

from maskedclip_composer.callbacks.run_cards import RunCards, count_parameters
from maskedclip_composer.models.pretrain import MaskedCLIP
from tests import tiny


def test_every_parameter_that_learns_is_counted_once():
    net = tiny.net()
    counts = count_parameters(net)
    assert list(counts) == ["image encoder", "bridge", "text encoder", *(f"heads of {name}" for name in net.objectives)]
    teacher = sum(parameter.numel() for parameter in net.teacher.parameters()) if net.teacher else 0
    assert sum(counts.values()) == sum(parameter.numel() for parameter in net.parameters()) - teacher
    assert "text encoder" not in count_parameters(tiny.net("mae"))


def test_a_card_that_cannot_be_written_does_not_end_the_run(tmp_path: Path, caplog):
    state = cast(State, SimpleNamespace(model=MaskedCLIP(tiny.net("mae"))))
    with caplog.at_level(logging.WARNING):
        RunCards(tmp_path, None).fit_end(state, cast(Logger, cast(Any, None)))  # the folder holds no run
    assert "model_card.md was not written: UserError" in caplog.text
