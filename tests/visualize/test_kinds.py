"""The pure parts of each kind of picture."""

import numpy as np
import pytest
import torch

import maskedclip_composer
from maskedclip_composer.errors import UserError
from maskedclip_composer.visualize.drawn import wrapped
from maskedclip_composer.visualize.patches import component_colours, without_means
from maskedclip_composer.visualize.reconstruction import patch_errors
from maskedclip_composer.visualize.retina_patches import retina_patches
from maskedclip_composer.visualize.sample import row_name, spread
from maskedclip_composer.visualize.scatter import COLOURS, REST, looks
from maskedclip_composer.visualize.spaces import FEWEST, Points, draw_spaces, flat
from maskedclip_composer.visualize.texts import patch_features
from tests.data_prep.drawing import retina

RNG = np.random.default_rng(5)


def test_errors_are_those_of_the_training_loss_and_of_a_guess():
    prediction, target = torch.randn(2, 6, 4), torch.randn(2, 6, 4)
    hidden = torch.tensor([[1.0, 0, 1, 1, 0, 1], [0, 1, 1, 0, 1, 1]])
    errors, own, guess = patch_errors(prediction, target, hidden)
    for image in range(2):
        visible = [patch for patch in range(6) if not hidden[image, patch]]
        mean = target[image, visible].mean(dim=0)
        removed = [patch for patch in range(6) if hidden[image, patch]]
        expected = [(prediction[image, patch] - target[image, patch]).pow(2).mean() for patch in removed]
        torch.testing.assert_close(errors[image, removed], torch.stack(expected))
        assert errors[image, visible].isnan().all()
        torch.testing.assert_close(own[image], torch.stack(expected).mean())
        torch.testing.assert_close(guess[image], (mean - target[image, removed]).pow(2).mean())


def test_a_patch_is_compared_with_texts_as_an_image_of_itself(run_folder):
    model = maskedclip_composer.load(run_folder).model
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    features = patch_features(model, images)
    tokens = model.bridge_tokens(images)
    for image, patch in ((0, 3), (1, 14)):
        projected = model.joint_space.image_projection(tokens[image, 1 + patch])
        torch.testing.assert_close(features[image, patch], projected / projected.norm())
    assert features.shape == (2, 16, 16)


def test_components_are_of_the_retina_alone_and_have_a_fixed_sign():
    tokens, retina_of = torch.randn(3, 20, 8), torch.rand(3, 20) < 0.8
    colours, shares = component_colours(tokens, retina_of)
    assert shares == sorted(shares, reverse=True)
    moved = tokens.clone()
    moved[~retina_of] += 1000
    torch.testing.assert_close(component_colours(moved, retina_of)[0], colours)
    order = torch.tensor([2, 0, 1])  # of the photographs
    torch.testing.assert_close(component_colours(tokens[order], retina_of[order])[0], colours[order])
    assert colours[retina_of].min() == 0
    assert colours[retina_of].max() == 1


def test_means_of_photographs_take_their_variance_away():
    offsets, noise = 10 * torch.randn(4, 1, 5), torch.randn(4, 30, 5)
    everywhere = torch.ones(4, 30, dtype=torch.bool)
    within, between = without_means(offsets + noise, everywhere)
    torch.testing.assert_close(within, noise - noise.mean(dim=1, keepdim=True), atol=1e-4, rtol=1e-4)
    assert between > 0.9
    assert without_means(noise - noise.mean(dim=1, keepdim=True), everywhere)[1] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("dim", [1.0, 0.3])  # a dim photograph's retina is darker than a bright one's mask may be
def test_the_surround_is_no_retina(dim):
    picture = retina(160, 160, radius=60).resize((64, 64))
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    found = retina_patches((pixels.float() * dim).to(torch.uint8), 8)[0].reshape(8, 8)
    assert not found[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    assert found[2:6, 2:6].all()
    assert retina_patches(torch.full((1, 3, 64, 64), 90, dtype=torch.uint8), 8).all()


def test_those_that_are_drawn_have_different_labels():
    labels = ["a"] * 6 + ["b"] * 2 + ["c"]
    places = [8, 7, 6, 5, 4, 3, 2, 1, 0]
    chosen = spread(places, labels, 4)
    assert chosen == sorted(chosen)
    assert sorted(labels[row] for row in chosen) == ["a", "b", "b", "c"]  # the second b comes before the second a
    assert spread(places, [""] * 9, 3) == [6, 7, 8]


def test_long_names_end_in_an_ellipsis():
    name = f"folder/{'x' * 60}_left.jpg"
    assert row_name(name, "").endswith("_left.jpg")
    assert max(map(len, row_name(name, "a label of very many words " * 9).splitlines())) <= 30
    assert wrapped("one two three four", width=8, lines=2) == "one two\nthree …"


def test_frequent_labels_have_colours_and_the_rest_is_counted():
    values = [f"label {number}" for number in range(len(COLOURS) + 3) for _ in range(20 - number)] + [None, None]
    colours, names = looks(values, len(values), COLOURS, REST)
    assert colours[:20] == [COLOURS[0]] * 20
    assert names[0] == ("label 0 (20)", COLOURS[0])
    assert names[-2:] == [("3 others (36)", REST), ("none (2)", REST)]
    assert colours[-1] == REST
    assert looks(None, 3, COLOURS, REST) == ([COLOURS[0]] * 3, [])


def clustered(count: int) -> np.ndarray:
    return np.eye(3)[np.arange(count) % 3] + 0.05 * RNG.normal(size=(count, 3))


def test_tsne_keeps_clusters_together_and_few_photographs_get_components():
    places = flat(clustered(60), seed=0)
    labels = np.arange(60) % 3
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1) + np.diag([np.inf] * 60)
    assert (labels[distances.argmin(axis=1)] == labels).all()
    unit = clustered(FEWEST - 1)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    centred, few = unit - unit.mean(axis=0), flat(unit, seed=0)
    expected = np.linalg.svd(centred, full_matrices=False)[1][:2]
    np.testing.assert_allclose(np.linalg.norm(few, axis=0), expected)


def test_spaces_say_what_they_can():
    labels = [str(number % 3) for number in range(40)]
    both = Points(masked=RNG.normal(size=(40, 3)), clip=clustered(40), labels=labels, sets=["x", None] * 20)
    numbers = draw_spaces(both, title="t", seed=0).numbers
    assert numbers["method"] == "t-SNE"
    assert numbers["CLIP space (E_I + B, projected)"]["purity"] == 1
    assert numbers["masked space (E_I)"]["purity"] < 0.6
    assert abs(numbers["linear_cka_debiased"]) < 0.3
    few = draw_spaces(Points(masked=RNG.normal(size=(8, 3)), labels=["a"] * 8), title="t", seed=0)
    assert few.numbers == {
        "photographs": 8, "method": "principal components", "seed": 0, "masked space (E_I)": {}
    }  # fmt: skip
    assert "fewer than 30 photographs" in few.limits
    with pytest.raises(UserError, match="2 photographs"):
        draw_spaces(Points(masked=RNG.normal(size=(2, 3))), title="t", seed=0)


def test_photographs_without_a_label_are_left_out_of_purity():
    labels = [None if number < 12 else str(number % 3) for number in range(45)]
    features = clustered(45)
    features[:12] = features[12]  # neighbours, if they were asked
    points = Points(masked=features, labels=labels)
    assert draw_spaces(points, title="t", seed=0).numbers["masked space (E_I)"]["purity"] == 1
