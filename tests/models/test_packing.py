"""Packed views, recomputed blocks, chunks and fewer predictions leave losses and gradients as they are."""

import pytest
import torch
from torch import Tensor
from xformers.ops.fmha.attn_bias import BlockDiagonalMask

from maskedclip_composer.compute import ActivationConfig, ComputeConfig
from maskedclip_composer.costs.counts import saved_bytes
from maskedclip_composer.errors import UserError
from maskedclip_composer.models.attention import SelfAttention, block_diagonal, use_backend
from maskedclip_composer.models.block import TokenBlock
from maskedclip_composer.models.cross_decoder import CrossDecoder
from maskedclip_composer.models.pretrain import MaskedCLIP
from maskedclip_composer.models.recompute import set_activation
from tests import tiny

PLAIN = ComputeConfig(packed=False, masked_only=False)
FULL = ActivationConfig(image="full", text="full", decoders="full")


def step(compute: ComputeConfig, batch, recipe: str = "maskedclip", dtype: torch.dtype = torch.float64):
    """Return the losses of a step, the gradients by parameter, and the network."""
    net = tiny.net(recipe, compute=compute).to(dtype)
    set_activation(net, compute.activation)
    losses = MaskedCLIP(net).loss(net(batch), batch)
    losses["total"].backward()
    gradients = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    return {name: loss.detach() for name, loss in losses.items()}, gradients, net


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor], *, tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name, values in other.items():
        error = (one[name] - values).norm() / (values.norm() + 1e-3)
        assert error <= tolerance, f"{name}: {error:.1e}"


@pytest.mark.parametrize(
    "compute",
    [
        ComputeConfig(masked_only=False),
        ComputeConfig(packed=False),
        ComputeConfig(),
        ComputeConfig(activation=FULL),
        ComputeConfig(chunk_size=1),
        ComputeConfig(chunk_size=3),
        ComputeConfig(chunk_size=5, packed=False),
        ComputeConfig(chunk_size=100),
        ComputeConfig(chunk_size=3, activation=FULL),
    ],
    ids=["packed", "masked_only", "both", "full", "chunk1", "chunk3", "chunk5unpacked", "chunk100", "chunk3full"],
)
def test_every_way_gives_the_losses_and_gradients_of_the_plain_one(compute, batch):
    losses, gradients, _ = step(compute, batch)
    plain_losses, plain_gradients, _ = step(PLAIN, batch)
    assert_same(losses, plain_losses, tolerance=1e-12)
    assert_same(gradients, plain_gradients, tolerance=1e-10)


@pytest.mark.parametrize("recipe", [name for name in tiny.RECIPES if name != "maskedclip"])
def test_every_recipe_in_chunks_and_recomputed(recipe, batch):
    net = tiny.net(recipe)
    has_decoders = any(isinstance(module, TokenBlock | CrossDecoder) for module in net.objectives.modules())
    activation = ActivationConfig(
        image="full", text="full" if net.text_encoder else "none", decoders="full" if has_decoders else "none"
    )
    compute = ComputeConfig(chunk_size=3, activation=activation)
    losses, gradients, _ = step(compute, batch, recipe, torch.float32)
    plain_losses, plain_gradients, _ = step(PLAIN, batch, recipe, torch.float32)
    assert_same(losses, plain_losses, tolerance=1e-5)
    assert_same(gradients, plain_gradients, tolerance=1e-3)


def test_recipes_with_either_view_alone_are_not_packed():
    packed = {recipe for recipe in tiny.RECIPES if tiny.net(recipe).packed}
    assert packed == {"mae+clip", "+bridge", "maskedclip"}


def test_a_packed_batch_without_one_stream(batch):
    for part in ("paired", "unpaired"):
        alone = {part: batch[part]}
        recipe = "mae" if part == "unpaired" else "maskedclip"
        assert_same(step(ComputeConfig(chunk_size=3), alone, recipe)[0], step(PLAIN, alone, recipe)[0], tolerance=1e-12)


def test_recomputed_blocks_and_chunks_keep_less_for_the_backward_pass(batch):
    def kept(compute: ComputeConfig) -> int:
        net = tiny.net("maskedclip", compute=compute)
        set_activation(net, compute.activation)
        known = [*net.parameters(), *net.buffers()]
        return saved_bytes(lambda: MaskedCLIP(net).loss(net(batch), batch)["total"], known)

    whole = kept(ComputeConfig())
    assert kept(ComputeConfig(activation=FULL)) < 0.6 * whole
    assert kept(ComputeConfig(chunk_size=2)) < 0.6 * whole
    for tower in ("image", "text", "decoders"):
        assert kept(ComputeConfig(activation=ActivationConfig(**{tower: "full"}))) < whole, tower


def test_packed_views_are_those_of_two_passes(image_encoder):
    encoder = image_encoder.double()
    images, ids_keep = torch.randn(5, 3, 32, 32).double(), torch.rand(5, 16).argsort(1)[:, :4]
    visible, whole = encoder.unpack(encoder(images, ids_keep, also_whole=3), 5, 3)
    torch.testing.assert_close(visible, encoder(images, ids_keep), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(whole, encoder(images[:3]), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("backend", ["sdpa", "explicit"])
def test_packed_sequences_do_not_see_each_other(backend):
    packing = ((3, 5), (2, 17))
    module = SelfAttention(24, num_heads=3, qkv_bias=True).double()
    use_backend(module, backend)
    sequences = [torch.randn(tokens, 24).double() for count, tokens in packing for _ in range(count)]
    packed = module(torch.cat(sequences), packing)
    for sequence, result in zip(sequences, packed.split([len(s) for s in sequences]), strict=True):
        torch.testing.assert_close(result, module(sequence[None])[0], atol=1e-12, rtol=1e-12)


def test_the_block_diagonal_mask_lets_tokens_see_their_sequence_alone():
    mask = block_diagonal(((3, 2), (1, 4)))
    assert isinstance(mask, BlockDiagonalMask)
    sequence = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 3, 3])
    assert torch.equal(mask.materialize((10, 10)) == 0, sequence[:, None] == sequence[None])


@pytest.mark.parametrize("backend", ["sdpa", "explicit"])
def test_the_last_tokens_alone_are_those_of_the_whole_block(backend):
    block = TokenBlock(24, 3, qkv_bias=True, attn_layer=SelfAttention).double()
    use_backend(block, backend)
    tokens = torch.randn(2, 7, 24).double()
    torch.testing.assert_close(block(tokens, num_queries=3), block(tokens)[:, -3:], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(
    ("recipe", "activation", "message"),
    [
        ("clip", ActivationConfig(decoders="full"), "compute.activation.decoders=full: this recipe has nothing there"),
        ("mmclip", ActivationConfig(decoders="budget:0.5"), "compute.activation.decoders=budget:0.5: this recipe"),
        ("mae", ActivationConfig(text="full"), "compute.activation.text=full, but no objective reads texts"),
    ],
)
def test_what_would_have_no_effect_is_refused(recipe, activation, message):
    with pytest.raises(UserError, match=message):
        set_activation(tiny.net(recipe), activation)
