"""What every classifier must allow: learning rates that fall from the head down to the patch embedding."""

import torch
from timm.optim import param_groups_layer_decay  # pyright: ignore[reportPrivateImportUsage]


def check_layers(classifier, *, first: str, head: str, size: int, classes: int = 3) -> dict[str, float]:
    """Check groups, head and gradients of a classifier; return each parameter's scale of the learning rate."""
    assert classifier.num_classes == classes
    groups = param_groups_layer_decay(
        classifier,
        weight_decay=0.05,
        no_weight_decay_list=classifier.no_weight_decay(),
        layer_decay=0.5,
    )
    names = {id(parameter): name for name, parameter in classifier.named_parameters()}
    listed = [names[id(parameter)] for group in groups for parameter in group["params"]]
    learning = {name for name, parameter in classifier.named_parameters() if parameter.requires_grad}
    assert len(listed) == len(set(listed))
    assert set(listed) == learning
    scales = {names[id(parameter)]: group["lr_scale"] for group in groups for parameter in group["params"]}
    decays = {names[id(parameter)]: group["weight_decay"] for group in groups for parameter in group["params"]}
    assert scales[head] == 1
    assert scales[first] == min(scales.values()) < 0.5
    assert decays[head] == 0.05
    assert classifier.get_parameter(head).abs().max() < 1e-4

    images = torch.randn(2, 3, size, size)
    logits = classifier.train().forward_head(classifier.forward_features(images))
    assert logits.shape == (2, classes)
    torch.testing.assert_close(logits, torch.zeros_like(logits), atol=0.05, rtol=0)
    torch.nn.init.normal_(classifier.get_parameter(head))
    logits = classifier.forward_head(classifier.forward_features(images))
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    assert {name for name, parameter in classifier.named_parameters() if parameter.grad is not None} == learning
    return scales
