import pytest
import torch

from maskedclip_composer.models.attention import SelfAttention, use_backend
from maskedclip_composer.visualize.rollout import attention_weights, recorded, rollout, start_at
from tests import tiny


@pytest.fixture
def attentions() -> list[torch.Tensor]:
    return [torch.rand(2, 5, 5).softmax(dim=-1) for _ in range(3)]


def plain_rollout(layers, start):
    """Return the paper's product of matrices, entry by entry."""
    tokens = len(layers[0])
    product = [[float(i == j) for j in range(tokens)] for i in range(tokens)]
    for layer in layers:  # A_1, then A_2 A_1, ...
        mixed = [[0.5 * float(layer[i][j]) + 0.5 * (i == j) for j in range(tokens)] for i in range(tokens)]
        product = [
            [sum(mixed[i][k] * product[k][j] for k in range(tokens)) for j in range(tokens)] for i in range(tokens)
        ]
    return [sum(start[i] * product[i][j] for i in range(tokens)) for j in range(tokens)]


@pytest.mark.parametrize("class_token", [True, False])
def test_rollout_is_the_product_of_layers_and_sums_to_one(attentions, class_token):
    start = start_at(5, class_token=class_token)
    found = rollout(attentions, start)
    for image in range(2):
        expected = plain_rollout([layer[image].tolist() for layer in attentions], start.tolist())
        torch.testing.assert_close(found[image], torch.tensor(expected))
    torch.testing.assert_close(found.sum(dim=1), torch.ones(2))


def test_tokens_that_attend_to_themselves_stay_where_they_are():
    identity = torch.eye(5).expand(1, -1, -1)
    torch.testing.assert_close(rollout([identity] * 4, start_at(5, class_token=True))[0], torch.eye(5)[0])
    torch.testing.assert_close(
        rollout([identity] * 4, start_at(5, class_token=False))[0], torch.tensor([0, *[0.25] * 4])
    )


def test_the_order_of_layers_counts(attentions):
    start = start_at(5, class_token=True)
    assert not torch.allclose(rollout(attentions, start), rollout(attentions[::-1], start), atol=1e-3)


@torch.no_grad()
def test_weights_are_those_that_the_layer_attends_with():
    """Its values, mixed by the weights, are its output: with every kernel, and with norms of queries and keys."""
    attention = SelfAttention(32, num_heads=4, qkv_bias=True, qk_norm=True, norm_layer=torch.nn.LayerNorm)
    x = torch.randn(2, 7, 32)
    weights = attention_weights(attention, x)
    assert weights.shape == (2, 4, 7, 7)
    value = attention.qkv(x).unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4)[2]
    mixed = attention.proj((weights @ value).transpose(1, 2).flatten(2))
    for backend in ("sdpa", "explicit"):
        use_backend(attention, backend)
        torch.testing.assert_close(attention(x), mixed)


@torch.no_grad()
def test_layers_are_recorded_in_order_and_no_longer_than_asked():
    branch = tiny.net().branch
    images = torch.randn(2, 3, tiny.IMAGE_SIZE, tiny.IMAGE_SIZE)
    without = branch(images)
    with recorded(branch.image_encoder, branch.bridge) as (encoder, bridge):
        torch.testing.assert_close(branch(images), without)
    blocks = branch.image_encoder.vit.blocks
    assert (len(encoder), len(bridge)) == (len(blocks), len(branch.bridge.blocks))
    patches, positions = branch.image_encoder._embed(images)
    tokens = branch.image_encoder._begin(patches + positions)
    for block, kept in zip(blocks, encoder, strict=True):
        torch.testing.assert_close(kept, attention_weights(block.attn, block.norm1(tokens)).mean(dim=1))
        tokens = block(tokens)
    branch(images)
    assert len(encoder) == len(blocks)
