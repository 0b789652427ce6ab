"""What one training step costs: counts that are the same in every run, and quotients of CPU time.

OMP_NUM_THREADS=1 python benchmarks/step.py; docs/performance.md explains the tables.
"""

import argparse
import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from rounds import interleave, machine, milliseconds, print_table, times_faster
from torch import Tensor, nn

from data_prep.phantom.diagnoses import DIAGNOSES
from data_prep.text_tower import build as build_text_tower
from maskedclip_composer.algorithms.ema_teacher import update_teacher
from maskedclip_composer.build import build_model
from maskedclip_composer.config import ObjectivesConfig, TrainConfig
from maskedclip_composer.costs.counts import count_calls, count_flops, saved_bytes
from maskedclip_composer.data.config import DataConfig, StreamConfig
from maskedclip_composer.data.schema import label_id
from maskedclip_composer.data.text import DrawnText, collate_texts
from maskedclip_composer.models.attention import AttentionBackend, use_backend
from maskedclip_composer.models.pretrain import MaskedCLIP
from maskedclip_composer.models.text import TextEncoderConfig, load_tokenizer
from maskedclip_composer.models.vit import ImageEncoderConfig
from maskedclip_composer.objectives.lg_clip import LgClipConfig
from maskedclip_composer.objectives.mfd import MfdConfig
from maskedclip_composer.objectives.mim import MimConfig
from maskedclip_composer.optim import build_optimizer
from maskedclip_composer.types import Batch

OURS = "sdpa, distinct texts"
TEXTS = [f"A fundus photograph of {name}." for name in DIAGNOSES]
TOLERANCE = 1e-5  # relative, float32


def configure(args: argparse.Namespace, text_tower: Path) -> TrainConfig:
    stream = partial(StreamConfig, batch_size=args.pairs)
    mim = MimConfig(dim=96, depth=args.depth, num_heads=3)
    return TrainConfig(
        run_name="step",
        data=DataConfig(paired=stream(remote="paired"), unpaired=stream(remote="unpaired"), image_size=args.image_size),
        image_encoder=ImageEncoderConfig(name="vit_tiny_patch16_224", depth=args.depth),
        text_encoder=TextEncoderConfig(name=str(text_tower)),
        objectives=ObjectivesConfig(mim=mim, lg_clip=LgClipConfig(), mfd=MfdConfig()),
        trainer={"max_duration": "1ep"},
    )


def make_batch(config: TrainConfig, pairs: int, distinct: int) -> Batch:
    """Draw noise as images, and texts of which `distinct` differ, collated as the loader does."""
    size, patches = config.data.image_size, (config.data.image_size // 16) ** 2

    def images(first: int) -> dict[str, Tensor]:
        pixels = torch.randint(0, 256, (pairs, 3, size, size), dtype=torch.uint8)
        return {"image": pixels, "noise": torch.rand(pairs, patches), "sample_id": torch.arange(first, first + pairs)}

    tokenizer = load_tokenizer(config.text_encoder)
    known = [DrawnText(text, np.asarray(tokenizer(text)["input_ids"], np.int32), label_id(text)) for text in TEXTS]
    drawn = [known[number % distinct] for number in range(pairs)]
    texts = collate_texts(drawn, max_tokens=config.data.max_tokens, pad_id=0)
    batch: Any = {"paired": images(0) | texts, "unpaired": images(pairs)}
    return batch


def with_every_text(batch: Batch, max_tokens: int) -> Batch:
    """Return the same batch as a loader makes it that encodes one text a pair, padded to the largest length."""
    part = cast(Any, batch)["paired"]
    texts = {
        key: nn.functional.pad(part[key][part["text_index"]], (0, max_tokens - part[key].shape[1]))
        for key in ("text_ids", "text_mask")
    }
    every: Any = part | texts | {"text_index": torch.arange(len(part["text_index"]))}
    return {**batch, "paired": every}


@dataclass(frozen=True)
class Step:
    """One variant of the step; all share the model and the optimiser."""

    model: MaskedCLIP
    optimizer: torch.optim.Optimizer
    batch: Batch
    backend: AttentionBackend

    def __call__(self) -> None:
        self.forward().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        assert self.model.net.teacher is not None
        update_teacher(self.model.net.teacher, self.model.net.branch, 0.999)

    def losses(self) -> dict[str, Tensor]:
        use_backend(self.model, self.backend)
        return self.model.loss(self.model(self.batch), self.batch)

    def forward(self) -> Tensor:
        return self.losses()["total"]

    def counts(self) -> tuple[str, int, str]:
        """Return GFLOP of forward and backward, ATen calls of the step, and MiB saved for the backward."""
        flops = count_flops(lambda: self.forward().backward())
        self.optimizer.zero_grad()
        inputs = [value for part in self.batch.values() for value in cast(dict[str, Tensor], part).values()]
        saved = saved_bytes(self.forward, [*self.model.parameters(), *self.model.buffers(), *inputs])
        return f"{flops / 1e9:.1f}", count_calls(self), f"{saved / 2**20:.1f}"


def check_losses(steps: dict[str, Step]) -> float:
    """Return the largest relative difference to the first variant's losses, and refuse one above TOLERANCE."""
    with torch.no_grad():
        values = {name: torch.stack(list(step.losses().values())) for name, step in steps.items()}
    reference = values[OURS]
    worst = max(float(((value - reference) / reference).abs().max()) for value in values.values())
    assert worst <= TOLERANCE, f"losses differ by {worst:.1e}: {values}"
    return worst


@torch.no_grad()
def update_in_loop(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Update the teacher as most public code does."""
    for old, new in zip(teacher.parameters(), student.parameters(), strict=True):
        old.mul_(momentum).add_(new, alpha=1 - momentum)


def compare_teacher_updates(model: MaskedCLIP, *, rounds: int, repeats: int = 20) -> None:
    """Print what the package's update costs, and what the loop costs."""
    student, teacher = model.net.branch, copy.deepcopy(model.net.branch)
    for parameter in teacher.parameters():
        nn.init.normal_(parameter)
    updates = {"foreach": update_teacher, "loop over parameters": update_in_loop}
    results = []
    for update in updates.values():
        target = copy.deepcopy(teacher)
        update(target, student, 0.9)
        results.append(torch.cat([parameter.data.flatten() for parameter in target.parameters()]))
    torch.testing.assert_close(*results)
    calls = {name: count_calls(partial(update, teacher, student, 0.999)) for name, update in updates.items()}

    def many(update: Callable[..., None]) -> None:
        for _ in range(repeats):
            update(teacher, student, 0.999)

    costs = interleave({name: partial(many, update) for name, update in updates.items()}, rounds=rounds)
    rows = [
        [name, count, milliseconds(costs[name], repeats), times_faster(costs[name], costs["foreach"])]
        for name, count in calls.items()
    ]
    print_table(["teacher update", "ATen calls", "CPU ms", "CPU of this / CPU of the first"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=8, help="and as many unpaired images (%(default)s)")
    parser.add_argument("--distinct", type=int, default=4, help="different texts of the pairs (%(default)s)")
    parser.add_argument("--depth", type=int, default=12, help="of encoder and pixel decoder (%(default)s)")
    parser.add_argument("--image-size", type=int, default=224, help="pixels (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="steps of each variant (%(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "text")
        build_text_tower(TEXTS, folder, width=192, layers=4, heads=3, vocab=2000, seed=0)
        config = configure(args, folder)
        model = build_model(config)
        batch = make_batch(config, args.pairs, args.distinct)
    optimizer = build_optimizer(config.optimizer, model.net, args.pairs)
    step = partial(Step, model, optimizer)
    every = with_every_text(batch, config.data.max_tokens)
    steps = {
        OURS: step(batch, "sdpa"),
        "sdpa, every text": step(every, "sdpa"),
        "explicit, distinct texts": step(batch, "explicit"),
        "explicit, every text": step(every, "explicit"),
    }
    difference = check_losses(steps)
    steps[OURS]()  # AdamW makes its state in the first step, which must not count
    counts = {name: variant.counts() for name, variant in steps.items()}
    costs = interleave(steps, rounds=args.rounds)
    print(f"Step: {machine()}\n{args.pairs} + {args.pairs} images, {args.distinct} texts, {args.rounds} rounds")
    print(f"The losses of all variants agree within {difference:.0e} (allowed {TOLERANCE:.0e}).\n")
    print_table(
        ["step", "GFLOP", "ATen calls", "saved MiB", "CPU ms", "CPU of this / CPU of the first"],
        [[name, *counts[name], milliseconds(costs[name], 1), times_faster(costs[name], costs[OURS])] for name in steps],
    )
    compare_teacher_updates(model, rounds=args.rounds)


if __name__ == "__main__":
    main()
