import timm
import torch

from maskedclip_composer.evaluation.encoders.load import load


def test_the_classifier_is_timms_average_pooled_vit():
    encoder = load("random:vit_tiny_patch16_224", image_size=32)
    classifier = encoder.classifier(3, 0.2).eval()
    reference = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, num_classes=3, global_pool="avg", drop_path_rate=0.2
    ).eval()
    reference.load_state_dict(classifier.state_dict(), strict=True)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(classifier(images), reference(images), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(classifier.forward_head(classifier.forward_features(images)), classifier(images))
    for own, other in zip(classifier.blocks, reference.blocks, strict=True):
        for place in ("drop_path1", "drop_path2"):
            rates = [getattr(getattr(block, place), "drop_prob", 0.0) for block in (own, other)]
            assert rates[0] == rates[1]
    assert all(parameter.requires_grad for parameter in classifier.parameters())
    assert not encoder.module.pos_embed.requires_grad  # the encoder itself is left alone
    assert any(
        isinstance(module, torch.nn.LayerNorm) for name, module in encoder.module.named_modules() if name == "norm"
    )
