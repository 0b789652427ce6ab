"""Where the time of a step goes, and which share of the device's peak it reaches."""

import logging
import resource
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from composer.core import Callback, Event, Precision, State
from composer.loggers import Logger
from composer.utils import dist

from maskedclip_composer.algorithms.ema_teacher import unwrap
from maskedclip_composer.costs.devices import peak_tflops
from maskedclip_composer.costs.sections import REST, Sections
from maskedclip_composer.types import Batch

log = logging.getLogger(__name__)

# What begins after an event, up to the next of these events. Composer 0.32.1 runs algorithms before callbacks, so that
# the clipping of gradients, an algorithm of AFTER_TRAIN_BATCH, lies before the optimizer's part. This callback has to
# be the first of all for what others do at an event to count for the part that begins there.
_BEGINS = {
    Event.BEFORE_DATALOADER: "data_wait",
    Event.AFTER_DATALOADER: REST,
    Event.BEFORE_FORWARD: "forward_rest",
    Event.AFTER_FORWARD: REST,
    Event.BEFORE_LOSS: "loss",
    Event.AFTER_LOSS: REST,
    Event.BEFORE_BACKWARD: "backward",
    Event.AFTER_BACKWARD: "clip_gradients",
    Event.AFTER_TRAIN_BATCH: "optimizer",
}


class StepTimes(Callback):
    """Log `time/*` in seconds, `throughput/tflops` and `throughput/mfu` of every `interval`-th step, on rank 0.

    The parts of the forward pass are those that `PretrainNet.timed` names: `time/forward_masked` and so on. What is in
    no other part is `time/rest`: all parts add up to `time/step`, from the request of a batch to the step's end.

    On CUDA the parts are taken by events on the stream, so `time/data_wait` is the time for which the device had
    nothing to do; they are read when the next step is measured, which waits for nothing. On a CPU it is a clock.

    The first step is never measured: it compiles, allocates, and has its operations counted.

    Args:
        interval: Steps from one measured step to the next.
        count: Counts the useful operations of one rank's batch; None logs neither of the two throughputs.
    """

    def __init__(self, interval: int, count: Callable[[Batch], int] | None = None):
        self.interval = interval
        self._count = count
        self._flops: int | None = None
        self._began = False
        self._on_gpu = False
        self._untimed: Any = None  # what the network has in place of a measurement
        self._sections: Sections[Any] | None = None
        self._pending: tuple[int, Sections[Any]] | None = None  # step and its events, not read yet
        self._hook: Any = None
        self._peak: float | None = None

    def run_event(self, event: Event, state: State, logger: Logger) -> None:
        """Mark what begins, when this step is one to be measured."""
        if dist.get_global_rank() != 0:
            return
        if event == Event.FIT_START:
            self._began = False
            self._start(state)
        elif event == Event.BEFORE_DATALOADER and self._measures(state):
            self._open(state)
        elif event == Event.BATCH_START and not self._began:
            self._began = True
            self._count_operations(state)
        if self._sections is not None and event in _BEGINS:
            self._sections.begin(_BEGINS[event])
        if self._sections is not None and event == Event.BATCH_END:
            self._close(state, logger)
        if event in (Event.EPOCH_END, Event.FIT_END):
            # The request that finds an epoch's end begins a step that never comes.
            self._stop(state)
        if event == Event.FIT_END:
            self._log_pending(logger)
            self._hook.remove()

    def _start(self, state: State) -> None:
        self._stop(state)  # a fit before this one may have broken off
        if self._hook is not None:
            self._hook.remove()
        self._on_gpu = state.device.name == "gpu"
        self._peak = _peak(state)
        (optimizer,) = state.optimizers
        self._hook = optimizer.register_step_post_hook(lambda *_: self._sections and self._sections.begin(REST))

    def _measures(self, state: State) -> bool:
        # One after the step of the diagnostics, which wait for the device.
        return self._began and state.timestamp.batch.value % self.interval == 1 % self.interval

    def _open(self, state: State) -> None:
        self._stop(state)
        read = partial(_record, torch.cuda.current_stream()) if self._on_gpu else time.perf_counter
        self._sections = Sections(read)
        net = unwrap(state.model).net
        self._untimed = net.timed
        section = self._sections.section
        net.timed = lambda name: section(name if name == "teacher_update" else f"forward_{name}")

    def _close(self, state: State, logger: Logger) -> None:
        """End the measured step; a clock's times are known at once, those of events when the device is done."""
        assert self._sections is not None
        self._sections.begin(REST)
        step, sections = state.timestamp.batch.value - 1, self._sections
        self._stop(state)
        self._log_pending(logger)
        self._pending = step, sections
        if not self._on_gpu:
            self._log_pending(logger)

    def _stop(self, state: State) -> None:
        """Leave the network as it was."""
        if self._sections is not None:
            self._sections = None
            unwrap(state.model).net.timed = self._untimed

    def _log_pending(self, logger: Logger) -> None:
        if self._pending is None:
            return
        step, sections = self._pending
        self._pending = None
        parts = sections.totals(_seconds)
        whole = sum(parts.values())
        metrics = {f"time/{name}": seconds for name, seconds in parts.items()}
        metrics |= {"time/step": whole, "time/data_wait_share": parts["data_wait"] / whole}
        if self._flops is not None:
            metrics["throughput/tflops"] = self._flops / whole / 1e12
            if self._peak is not None:
                metrics["throughput/mfu"] = metrics["throughput/tflops"] / self._peak
        logger.log_metrics(metrics | {"memory/high_water_gib": _high_water_gib()}, step=step)

    def _count_operations(self, state: State) -> None:
        if self._count is None:
            return
        try:
            # Weights that nobody reads are drawn: the run's own random numbers must not depend on it.
            with torch.random.fork_rng(devices=[]):  # counting runs on the CPU
                self._flops = self._count(state.batch)
        except Exception as error:  # whatever it is, a run is worth more than this number
            log.warning("The step's operations could not be counted, so no MFU is logged: %s", error)


def _peak(state: State) -> float | None:
    """Return the device's peak in TFLOP/s; None where it is not known, or products are not in 16 bits."""
    in_16_bits = state.precision in (Precision.AMP_BF16, Precision.AMP_FP16)
    in_8_bits = any(type(module).__module__.startswith("torchao.") for module in state.model.modules())
    if state.device.name != "gpu" or not in_16_bits or in_8_bits:
        return None
    return peak_tflops(torch.cuda.get_device_name())


def _record(stream: torch.cuda.Stream) -> Any:
    event = torch.cuda.Event(enable_timing=True)
    event.record(stream)
    return event


def _seconds(first: Any, second: Any) -> float:
    if isinstance(first, float):
        return second - first
    second.synchronize()  # long past, but for the last step of a run
    return first.elapsed_time(second) / 1000


def _high_water_gib() -> float:
    """Return the most memory that tensors have taken on the GPU, or this process on the CPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
