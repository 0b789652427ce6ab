import torch

from maskedclip_composer.models.decoder import Decoder
from maskedclip_composer.models.masking import random_masking


def decoder(**overrides) -> Decoder:
    return Decoder(**{"embed_dim": 12, "grid": (4, 4), "dim": 16, "depth": 1, "num_heads": 2, "out_dim": 7} | overrides)


def test_it_predicts_every_patch():
    tokens, noise = torch.randn(3, 5, 12), torch.rand(3, 16)
    assert decoder()(tokens, random_masking(noise, 0.75).ids_restore).shape == (3, 16, 7)


def test_visible_tokens_and_gaps_come_back_to_their_own_places():
    """Without blocks a prediction depends on its own token and position alone."""
    module = decoder(depth=0)
    images, noise = torch.randn(2, 16, 12), torch.rand(2, 16)
    mask = random_masking(noise, 0.75)
    visible = torch.take_along_dim(images, mask.ids_keep[:, :, None], dim=1)
    out = module(torch.cat([torch.randn(2, 1, 12), visible], dim=1), mask.ids_restore)
    embedded = torch.where(mask.mask[:, :, None] == 1, module.mask_token, module.embed(images))
    torch.testing.assert_close(out, module.predict(embedded + module.positions[:, 1:]))


def test_the_class_token_is_context():
    module = decoder()
    ids_restore = random_masking(torch.rand(1, 16), 0.75).ids_restore
    tokens = torch.randn(1, 5, 12)
    changed = tokens.clone()
    changed[:, 0] += 1
    assert (module(changed, ids_restore) - module(tokens, ids_restore)).abs().min(dim=-1).values.max() > 1e-5


def test_two_decoders_share_nothing():
    one, other = decoder(), decoder()
    assert not {id(p) for p in one.parameters()} & {id(p) for p in other.parameters()}
    assert not torch.equal(one.mask_token, other.mask_token)
