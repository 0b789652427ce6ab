import pytest

from maskedclip_composer.compute import ActivationConfig, ComputeConfig, budget
from maskedclip_composer.errors import UserError


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ActivationConfig(image="some"), "compute.activation.image=some is not available"),
        (lambda: ActivationConfig(decoders="budget:1.5"), "compute.activation.decoders=budget:1.5 is not available"),
        (lambda: ActivationConfig(image="budget:"), "compute.activation.image=budget: is not available"),
        (lambda: ActivationConfig(text="budget:0.5"), "compute.activation.text=budget:0.5: the text encoder is not"),
        (lambda: ComputeConfig(chunk_size=0), "compute.chunk_size=0 is not positive"),
        (
            lambda: ComputeConfig(compile="none", activation=ActivationConfig(image="budget:0.5")),
            "(?s)compute.activation.image=budget:0.5 is kept by the compiler.*compute.compile=blocks",
        ),
    ],
)
def test_what_cannot_be_computed_is_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize(
    ("activation", "share"),
    [("none", None), ("full", None), ("budget:0.5", 0.5), ("budget:0", 0.0), ("budget:.25", 0.25)],
)
def test_budget(activation, share):
    assert budget(activation) == share
    ComputeConfig(activation=ActivationConfig(image=activation))
