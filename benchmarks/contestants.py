"""Peers and ours as steps that are called alike, with the same weights, mask noise and batch."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
from peer_step import Level, Peer, PeerSizes, default_adamw
from sizes import MASK_RATIO, Sizes, build_network, make_batch, text_settings
from torch import Tensor, nn

from maskedclip_composer.algorithms.ema_teacher import update_teacher
from maskedclip_composer.compute import ComputeConfig
from maskedclip_composer.models.attention import AttentionBackend
from maskedclip_composer.models.compiled import compile_blocks
from maskedclip_composer.models.fp8 import use_fp8
from maskedclip_composer.objectives.lg_clip import LgClipConfig
from maskedclip_composer.optim import OptimizerConfig, build_optimizer

MOMENTUM = 0.999
OPTIMIZER = OptimizerConfig(lr=1e-4, text_lr_mult=1.0)  # the peer has one learning rate


@dataclass(frozen=True, kw_only=True)
class Step:
    """One training step: forward, losses, backward, AdamW, teacher. Gradients are not clipped."""

    net: nn.Module
    losses: Callable[[], dict[str, Tensor]]
    optimizer: torch.optim.Optimizer
    update_teacher: Callable[[], None]
    inputs: list[Tensor]
    autocast: torch.dtype | None = None

    def forward(self) -> dict[str, Tensor]:
        """Return the losses, `total` among them."""
        device = self.inputs[0].device.type
        with torch.autocast(device, dtype=self.autocast or torch.bfloat16, enabled=self.autocast is not None):
            return self.losses()

    def gradients(self) -> dict[str, Tensor]:
        """Run forward and backward; return the losses."""
        losses = self.forward()
        losses["total"].backward()
        return {name: value.detach() for name, value in losses.items()}

    def __call__(self) -> dict[str, Tensor]:
        """Run the whole step; return the losses before it."""
        losses = self.gradients()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.update_teacher()
        return losses

    def loss_values(self) -> dict[str, float]:
        """Return the losses of the present weights."""
        with torch.no_grad():
            return {name: float(value) for name, value in self.forward().items()}


@dataclass(frozen=True, kw_only=True)
class Task:
    """What all contestants do: the sizes, the batch, the padding of the peer's texts, and where."""

    sizes: Sizes
    pairs: int
    texts: int
    max_tokens: int
    device: str = "cpu"
    autocast: torch.dtype | None = None
    weights: Mapping[str, Tensor] | None = None
    attention: AttentionBackend = "sdpa"  # of ours

    def ours(self, compute: ComputeConfig) -> Step:
        """Build our step with the weights of `weights`, which are drawn anew where there are none."""
        with torch.device(self.device):
            model = build_network(self.sizes, compute, self.attention)
        if self.weights is not None:
            model.net.load_state_dict(self.weights)
        use_fp8(model.net, compute.fp8, torch.device(self.device))
        compile_blocks(model.net, compute, torch.device(self.device))
        max_tokens = None if compute.distinct_texts else self.max_tokens
        batch: Any = make_batch(self.sizes, self.pairs, self.texts, max_tokens=max_tokens)
        batch = {name: {key: value.to(self.device) for key, value in part.items()} for name, part in batch.items()}
        net = model.net
        assert net.teacher is not None
        teacher = net.teacher
        return Step(
            net=net,
            losses=lambda: model.loss(model(batch), batch),
            optimizer=build_optimizer(OPTIMIZER, net, self.pairs, fused=compute.fused_optimizer),
            update_teacher=lambda: update_teacher(teacher, net.branch, MOMENTUM),
            inputs=[value for part in batch.values() for value in part.values()],
            autocast=self.autocast,
        )

    def peer(self, level: Level) -> Step:
        """Build the peer's step."""
        shared = asdict(self.sizes)
        shared = {key: shared[key] for key in shared if key in PeerSizes.__dataclass_fields__}
        sizes = PeerSizes(**shared, joint_dim=LgClipConfig.embed_dim, mask_ratio=MASK_RATIO)
        with torch.device(self.device):
            peer = Peer(sizes, text_settings(self.sizes), level)
        if self.weights is not None:
            peer.load_state_dict(self.weights)
        batch = self.peer_batch()
        return Step(
            net=peer,
            losses=lambda: peer(batch),
            optimizer=default_adamw(peer, cast(float, OPTIMIZER.lr), OPTIMIZER.weight_decay, (0.9, 0.95)),
            update_teacher=lambda: peer.update_teacher(MOMENTUM),
            inputs=list(batch.values()),
            autocast=self.autocast,
        )

    def peer_batch(self) -> dict[str, Tensor]:
        """Return the batch as public loaders make it: images normalised in float, a row of `max_tokens` a pair."""
        ours: Any = make_batch(self.sizes, self.pairs, self.texts, max_tokens=self.max_tokens)
        batch = {name: normalised(ours[name]["image"]) for name in ("paired", "unpaired")}
        batch["noise"] = torch.cat([ours[name]["noise"] for name in ("paired", "unpaired")])
        batch |= {key: ours["paired"][key] for key in ("text_ids", "text_mask", "label")}
        return {key: value.to(self.device) for key, value in batch.items()}


def normalised(images: Tensor) -> Tensor:
    """Do on the host what a public loader's ToTensor and Normalize do."""
    from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    return (images.to(mean.dtype) / 255 - mean) / std


def check_losses(steps: Mapping[str, Step], tolerance: float) -> float:
    """Return the largest relative difference of any loss from the first step's; refuse one above `tolerance`."""
    values = {name: step.loss_values() for name, step in steps.items()}
    reference = next(iter(values.values()))
    differences = [abs(found[key] / reference[key] - 1) for found in values.values() for key in reference]
    worst = float(np.max(differences))  # nan if there is one, which Python's max may pass over
    if not worst <= tolerance:
        raise AssertionError(f"losses differ by {worst:.1e}, more than {tolerance:.0e}: {values}")
    return worst


@contextmanager
def in_double() -> Iterator[None]:
    """Build and compute in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
