"""Where the time of a step goes: that it is all accounted for, and that nothing changes by looking."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from composer import Trainer
from composer.core import Callback, Event, Precision, State
from composer.loggers import InMemoryLogger, Logger

from maskedclip_composer.algorithms.ema_teacher import EMATeacher, unwrap
from maskedclip_composer.callbacks import step_times
from maskedclip_composer.callbacks.seeding import StepSeeding
from maskedclip_composer.callbacks.step_times import StepTimes
from maskedclip_composer.models.teacher import TeacherConfig
from maskedclip_composer.types import Batch
from tests.callbacks import tiny
from tests.composer_run import whole_parameters

PARTS = (
    "data_wait",
    "forward_packed",
    "forward_bridge",
    "forward_text",
    "forward_teacher",
    "forward_objectives",
    "forward_rest",
    "loss",
    "backward",
    "clip_gradients",
    "optimizer",
    "teacher_update",
    "rest",
)


class Wall(Callback):
    """Takes the time of each step with a clock of its own."""

    def __init__(self):
        self.seconds: list[float] = []

    def run_event(self, event: Event, state: State, logger: Logger) -> None:
        if event == Event.BEFORE_DATALOADER:
            self._start = time.perf_counter()
        if event == Event.BATCH_END:
            self.seconds.append(time.perf_counter() - self._start)


def build(*callbacks: Callback, num_batches: int, duration: str) -> tuple[Trainer, InMemoryLogger]:
    torch.manual_seed(0)
    model, logger = tiny.TinyModel(), InMemoryLogger()
    trainer = Trainer(
        model=model,
        train_dataloader=tiny.loader(num_batches),
        optimizers=torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2),
        algorithms=[EMATeacher(TeacherConfig(momentum=0.9))],
        max_duration=duration,
        callbacks=list(callbacks),
        loggers=[logger],
        progress_bar=False,
        device="cpu",
    )
    return trainer, logger


def fit(*callbacks: Callback, num_batches: int = 5) -> tuple[Trainer, InMemoryLogger]:
    trainer, logger = build(*callbacks, num_batches=num_batches, duration=f"{num_batches}ba")
    trainer.fit()
    trainer.close()
    return trainer, logger


def values(logger: InMemoryLogger, key: str) -> list[float]:
    return [value for _, value in logger.data.get(key, [])]


def test_parts_add_up_to_the_step():
    wall = Wall()
    _, logger = fit(StepTimes(1), wall)
    parts = {key: values(logger, f"time/{key}") for key in PARTS}
    steps = values(logger, "time/step")
    assert len(steps) == 4  # the first is not measured
    for number, step in enumerate(steps):
        seconds = {key: found[number] for key, found in parts.items()}
        assert min(seconds.values()) >= 0
        assert sum(seconds.values()) == pytest.approx(step)
        assert step / 2 <= step - seconds["rest"] <= step <= wall.seconds[number + 1]
        assert values(logger, "time/data_wait_share")[number] == pytest.approx(seconds["data_wait"] / step)


def test_what_takes_long_is_found():
    class Slow(Callback):
        def before_loss(self, state: State, logger: Logger) -> None:
            time.sleep(0.2)

    _, logger = fit(StepTimes(1), Slow())
    assert min(values(logger, "time/loss")) >= 0.2
    assert max(values(logger, "time/backward")) < 0.2


@pytest.mark.parametrize(("interval", "measured"), [(1, 4), (2, 2), (3, 2), (10, 1)])
def test_every_so_many_steps(interval: int, measured: int):
    _, logger = fit(StepTimes(interval))
    assert len(values(logger, "time/step")) == measured
    assert len(values(logger, "memory/high_water_gib")) == measured


def test_training_is_the_same_bit_for_bit():
    def count(batch: Batch) -> int:
        torch.rand(7)  # whatever counting draws
        return 10**12

    plain, _ = fit(StepSeeding(3))
    timed, logger = fit(StepTimes(1, count), StepSeeding(3))
    before, after = whole_parameters(plain.state), whole_parameters(timed.state)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert values(logger, "loss/train/total")
    assert "throughput/mfu" not in logger.data  # of a CPU the peak is not known
    for rate, step in zip(values(logger, "throughput/tflops"), values(logger, "time/step"), strict=True):
        assert rate == pytest.approx(1 / step)


def test_the_network_is_left_as_it_was_and_a_failed_count_stops_nothing(caplog: pytest.LogCaptureFixture):
    def count(batch: Batch) -> int:
        raise RuntimeError("no formula")

    trainer, logger = fit(StepTimes(1, count))
    with unwrap(trainer.state.model).net.timed("masked") as inside:
        assert inside is None
    assert values(logger, "time/step")
    assert "throughput/tflops" not in logger.data
    assert "no formula" in caplog.text


def test_after_an_epoch_and_in_a_second_fit():
    """An epoch's end is found by a request for a batch that never comes."""

    class Looks(Callback):
        def __init__(self):
            self.timed: list[bool] = []

        def epoch_end(self, state: State, logger: Logger) -> None:
            with unwrap(state.model).net.timed("masked") as inside:
                self.timed.append(inside is not None or looked._sections is not None)

    looked, looks = StepTimes(1), Looks()
    trainer, logger = build(looked, looks, num_batches=3, duration="2ep")
    before = unwrap(trainer.state.model).net.timed
    trainer.fit()
    trainer.fit(duration="1ep")
    trainer.close()
    assert looks.timed == [False, False, False]
    assert unwrap(trainer.state.model).net.timed is before
    assert len(values(logger, "time/step")) == (6 - 1) + (3 - 1)  # the first of each start is not measured
    assert len(trainer.state.optimizers[0]._optimizer_step_post_hooks) == 0


def test_a_fit_after_one_that_broke_off():
    class Breaks(Callback):
        broken = False

        def before_loss(self, state: State, logger: Logger) -> None:
            if state.timestamp.batch == 2 and not self.broken:
                self.broken = True
                raise KeyboardInterrupt

    trainer, _ = build(StepTimes(1), Breaks(), num_batches=5, duration="5ba")
    before = unwrap(trainer.state.model).net.timed
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    trainer.fit()
    trainer.close()
    assert unwrap(trainer.state.model).net.timed is before
    assert len(trainer.state.optimizers[0]._optimizer_step_post_hooks) == 0


class InEightBits(torch.nn.Linear):
    pass


InEightBits.__module__ = "torchao.float8.float8_linear"


@pytest.mark.parametrize(
    ("device", "precision", "layer", "known"),
    [
        ("gpu", Precision.AMP_BF16, torch.nn.Linear, True),
        ("gpu", Precision.AMP_FP16, torch.nn.Linear, True),
        ("gpu", Precision.FP32, torch.nn.Linear, False),
        ("gpu", Precision.AMP_BF16, InEightBits, False),
        ("cpu", Precision.AMP_BF16, torch.nn.Linear, False),
    ],
)
def test_the_peak_is_that_of_16_bits(
    device: str, precision: Precision, layer: type[torch.nn.Linear], known: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    model = torch.nn.Sequential(layer(2, 2))
    state: Any = SimpleNamespace(device=SimpleNamespace(name=device), precision=precision, model=model)
    assert (step_times._peak(state) is not None) == known


class FakeEvent:
    """As torch.cuda.Event, of a device that is a clock; it counts who waits for it."""

    waits = 0

    def __init__(self):
        self.milliseconds = 1000 * time.perf_counter()

    def synchronize(self) -> None:
        type(self).waits += 1

    def elapsed_time(self, other: "FakeEvent") -> float:
        return other.milliseconds - self.milliseconds


def test_events_are_read_when_the_next_step_is_measured(monkeypatch: pytest.MonkeyPatch):
    class OnGpu(StepTimes):
        def _start(self, state: State) -> None:
            super()._start(state)
            self._on_gpu = True

    class Waits(Callback):
        def __init__(self):
            self.after_step: list[int] = []

        def batch_end(self, state: State, logger: Logger) -> None:
            self.after_step.append(FakeEvent.waits)

    monkeypatch.setattr(torch.cuda, "current_stream", lambda: None)
    monkeypatch.setattr(step_times, "_record", lambda stream: FakeEvent())
    waits = Waits()
    _, logger = fit(OnGpu(2), waits)
    first_measured, last = waits.after_step[1], waits.after_step[-1]
    assert first_measured == 0 < last < FakeEvent.waits  # the last measured step is read at the end
    assert len(values(logger, "time/step")) == 2
    assert min(values(logger, "time/backward")) > 0
