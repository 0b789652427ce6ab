import pytest
import timm
import torch

from maskedclip_composer.errors import UserError
from maskedclip_composer.models.attention import SelfAttention
from maskedclip_composer.models.vit import ImageEncoderConfig, build_image_encoder, build_vit
from tests.tiny import IMAGE_SIZE, NUM_PATCHES, PATCH_SIZE


def timm_twin(encoder) -> timm.models.VisionTransformer:
    twin = timm.create_model("test_vit", num_classes=0, img_size=IMAGE_SIZE, patch_size=PATCH_SIZE)
    twin.load_state_dict(encoder.vit.state_dict(), strict=True)
    return twin


def test_a_whole_image_is_encoded_as_by_timm(image_encoder):
    images = torch.randn(2, 3, IMAGE_SIZE, IMAGE_SIZE)
    twin = timm_twin(image_encoder)
    torch.testing.assert_close(image_encoder(images), twin.forward_features(images), atol=1e-5, rtol=1e-5)
    attentions = [module for module in twin.modules() if isinstance(module, timm.layers.Attention)]
    assert not any(isinstance(module, SelfAttention) for module in attentions)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_xsmall_patch16_clip_224", "vit_small_patch14_dinov2"])
def test_timm_models_of_other_details_are_encoded_as_by_timm(name):
    """A norm before the blocks (CLIP), layer scale and another patch size (DINOv2)."""
    encoder = build_image_encoder(ImageEncoderConfig(name=name), 56 if "14" in name else 32)
    twin = timm.create_model(name, num_classes=0, img_size=56 if "14" in name else 32)
    twin.load_state_dict(encoder.vit.state_dict(), strict=True)
    images = torch.randn(1, 3, *encoder.vit.patch_embed.img_size)
    torch.testing.assert_close(encoder(images), twin.forward_features(images), atol=1e-4, rtol=1e-4)


def test_all_patches_kept_in_order_is_the_whole_image(image_encoder):
    images = torch.randn(2, 3, IMAGE_SIZE, IMAGE_SIZE)
    every = torch.arange(NUM_PATCHES).expand(2, -1)
    torch.testing.assert_close(image_encoder(images, every), image_encoder(images))


def test_visible_tokens_keep_their_own_position_and_order_is_free(image_encoder):
    images = torch.randn(1, 3, IMAGE_SIZE, IMAGE_SIZE)
    tokens = image_encoder(images, torch.tensor([[2, 9, 5]]))
    assert tokens.shape == (1, 4, 64)
    permuted = image_encoder(images, torch.tensor([[9, 5, 2]]))
    torch.testing.assert_close(permuted[:, [0, 3, 1, 2]], tokens)
    # The same pixels at another place are another token.
    flat = torch.zeros_like(images)
    assert (image_encoder(flat, torch.tensor([[2]])) - image_encoder(flat, torch.tensor([[3]]))).abs().max() > 1e-3


def test_removed_patches_do_not_reach_the_visible_tokens(image_encoder):
    images = torch.randn(1, 3, IMAGE_SIZE, IMAGE_SIZE)
    kept = torch.tensor([[0, 5]])  # patches of rows 0-7 and columns 0-7, rows 8-15 and columns 8-15
    changed = images.clone()
    changed[:, :, 16:] = 9
    changed[:, :, :8, 8:] = 9
    assert torch.equal(image_encoder(changed, kept), image_encoder(images, kept))
    changed[:, :, 9, 9] = -9
    assert not torch.equal(image_encoder(changed, kept), image_encoder(images, kept))


def test_initialisation_from_scratch_is_maes(image_encoder):
    vit = image_encoder.vit
    assert not vit.pos_embed.requires_grad
    assert vit.pos_embed[:, 0].abs().sum() == 0
    weight = vit.blocks[0].mlp.fc1.weight
    bound = (6 / (weight.shape[0] + weight.shape[1])) ** 0.5
    assert 0.95 * bound < weight.abs().max() <= bound
    patches = vit.patch_embed.proj.weight.flatten(1)
    bound = (6 / (patches.shape[0] + patches.shape[1])) ** 0.5
    assert 0.95 * bound < patches.abs().max() <= bound
    assert 0.01 < vit.cls_token.std() < 0.03
    biases = [p for name, p in vit.named_parameters() if name.endswith(".bias") and "patch_embed" not in name]
    assert biases
    assert all(bias.abs().sum() == 0 for bias in biases)


def test_sizes_follow_the_config():
    encoder = build_image_encoder(ImageEncoderConfig(name="test_vit", patch_size=4), 24)
    assert (encoder.grid, encoder.patch_size, encoder.embed_dim, encoder.num_heads) == ((6, 6), 4, 64, 2)
    assert build_image_encoder(ImageEncoderConfig(name="test_vit"), 32).patch_size == 16


@pytest.mark.parametrize(
    ("name", "size", "patch", "pretrained", "message"),
    [
        ("vit_tny_patch16_224", 32, 8, False, "vit_tny_patch16_224 is no timm model.*vit_tiny_patch16_224"),
        ("resnet18", 32, 8, False, "resnet18 is no ViT with a class token"),
        ("vit_base_patch16_rpn_224", 32, 8, False, "is no ViT with a class token"),  # mean pooling only
        ("vit_small_patch14_reg4_dinov2", 56, None, False, "is no ViT with a class token"),  # registers
        ("test_vit3", 32, 8, False, "is no ViT with a class token"),  # one register and no class token
        ("vit_small_r26_s32_224", 64, None, False, "is no ViT with a class token"),  # convolutions see removed patches
        ("vit_small_patch16_18x2_224", 32, None, False, "is no ViT with a class token"),  # parallel blocks
        ("test_vit", 36, 8, False, "data.image_size=36 is not divisible by the patch size 8.*32 or 40"),
        ("vit_tiny_patch16_224.nonsense", 32, 8, False, "vit_tiny_patch16_224.nonsense.*nonsense"),
        ("vit_tiny_patch16_224", 32, 8, True, "pretrained=true.*could not load weights for vit_tiny_patch16_224"),
    ],
)
def test_what_cannot_be_an_encoder_is_refused(name, size, patch, pretrained, message):
    with pytest.raises(UserError, match=f"(?s){message}"):
        build_vit(name, size, patch, pretrained=pretrained)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (24, 40), (16, 64)])  # the last has the encoder's 16 patches
def test_an_image_of_another_size_is_encoded_as_by_timm(image_encoder, height, width):
    twin = timm.create_model(
        "test_vit", num_classes=0, img_size=IMAGE_SIZE, patch_size=PATCH_SIZE, dynamic_img_size=True
    )
    twin.load_state_dict(image_encoder.vit.state_dict(), strict=True)
    images = torch.randn(2, 3, height, width)
    tokens = image_encoder(images)
    assert tokens.shape == (2, 1 + (height // PATCH_SIZE) * (width // PATCH_SIZE), 64)
    torch.testing.assert_close(tokens, twin.forward_features(images), atol=1e-5, rtol=1e-5)


def test_an_image_that_is_not_of_whole_patches_is_refused(image_encoder):
    with pytest.raises(ValueError, match=r"images of \(20, 20\) pixels have no whole patches of 8"):
        image_encoder(torch.randn(1, 3, 20, 20))


def test_learnt_positions_learn_from_images_of_another_size():
    encoder = build_image_encoder(ImageEncoderConfig(name="test_vit", patch_size=PATCH_SIZE), IMAGE_SIZE)
    encoder.vit.pos_embed.requires_grad_()
    encoder(torch.randn(1, 3, 16, 16)).square().sum().backward()
    assert encoder.vit.pos_embed.grad.abs().sum(dim=-1).min() > 0


def test_a_hidden_patch_is_the_mask_token_at_its_position(image_encoder):
    images, token = torch.randn(2, 3, IMAGE_SIZE, IMAGE_SIZE), torch.randn(1, 1, 64)
    hidden = torch.zeros(2, NUM_PATCHES, dtype=torch.bool)
    hidden[0, [1, 6]] = True
    tokens = image_encoder(images, block_mask=hidden, mask_token=token)

    vit = image_encoder.vit
    patches = vit.patch_embed(images)
    patches[0, 1] = patches[0, 6] = token.flatten()
    expected = torch.cat([vit.cls_token.expand(2, -1, -1), patches], dim=1) + vit.pos_embed
    torch.testing.assert_close(tokens, vit.norm(vit.blocks(vit.norm_pre(expected))))

    changed = images.clone()
    changed[0, :, :8, 8:16] = 9  # the pixels of patch 1
    assert torch.equal(image_encoder(changed, block_mask=hidden, mask_token=token), tokens)
    changed[0, :, :8, 16:24] = 9
    assert not torch.equal(image_encoder(changed, block_mask=hidden, mask_token=token), tokens)


def test_without_a_hidden_patch_the_mask_token_changes_nothing_and_has_a_gradient_of_zero(image_encoder):
    images, token = torch.randn(2, 3, IMAGE_SIZE, IMAGE_SIZE), torch.randn(1, 1, 64, requires_grad=True)
    tokens = image_encoder(images, block_mask=torch.zeros(2, NUM_PATCHES, dtype=torch.bool), mask_token=token)
    assert torch.equal(tokens, image_encoder(images))
    tokens.sum().backward()
    assert token.grad is not None
    assert token.grad.abs().sum() == 0
