from dataclasses import replace

import numpy as np
import pytest

from data_prep.phantom.anatomy import Side, sample_eye
from data_prep.phantom.case import Case, photograph, sample_cases
from data_prep.phantom.diagnoses import DIAGNOSES, GLAUCOMA, NORMAL, SEVERE, describe, locate
from data_prep.phantom.lesions import LOOKS, Kind, Place, lesion_mask, sample_lesions
from data_prep.phantom.raster import Frame

SIZE = 128
PLACES: dict[Kind, Place] = {
    "hard exudates": "macula",
    "cotton wool spots": "arcades",
    "drusen": "macula",
    "flame haemorrhages": "sector",
    "preretinal haemorrhage": "arcades",
    "neovascularisation": "disc",
}


def draw_case(seed: int, name: str, side: Side = "right") -> Case:
    return sample_cases(np.random.SeedSequence(seed), {side: [name]})[0]


def sharp(case: Case) -> Case:
    """Without the two effects that carry light from one pixel to another, and without noise."""
    return replace(case, camera=replace(case.camera, blur=0.0, haze=0.0, noise=0.0, ghosts=np.empty((0, 4))))


def frame_of(case: Case) -> Frame:
    return Frame(size=SIZE, radius=case.camera.radius, side=case.eye.side)


@pytest.mark.parametrize("kind", list(LOOKS))
@pytest.mark.parametrize("side", ["left", "right"])
def test_lesions_change_their_own_pixels_only(kind: Kind, side: Side):
    healthy = sharp(draw_case(2, NORMAL, side))
    rng = np.random.default_rng(1)
    lesions = sample_lesions(rng, healthy.eye, kind, 2, PLACES.get(kind, "posterior pole"))
    before = photograph(healthy, SIZE).astype(int)
    after = photograph(replace(healthy, lesions=(lesions,)), SIZE).astype(int)
    mask = lesion_mask(lesions, frame_of(healthy))
    assert np.array_equal(before[mask == 0], after[mask == 0])
    green = (after - before)[..., 1][mask > 0.5]
    bright = LOOKS[kind].factor[1] > 1
    assert len(green) > 0
    assert np.mean(green > 0 if bright else green < 0) > 0.8
    assert np.abs(green).mean() > 8


def test_glaucoma_enlarges_the_cup_and_changes_nothing_outside_the_disc():
    healthy, ill = sharp(draw_case(5, NORMAL)), sharp(draw_case(5, GLAUCOMA))
    assert ill.eye.cup > 0.6 > healthy.eye.cup
    assert replace(ill.eye, cup=healthy.eye.cup, vessels=()) == replace(healthy.eye, vessels=())
    before, after = photograph(healthy, SIZE).astype(int), photograph(ill, SIZE).astype(int)
    x, y = frame_of(healthy).grid
    (centre_x, centre_y), (horizontal, vertical) = healthy.eye.disc, healthy.eye.disc_axes
    disc = np.hypot((x - centre_x) / horizontal, (y - centre_y) / vertical)
    assert np.array_equal(before[disc > 1.4], after[disc > 1.4])
    assert (after - before)[..., 2][disc < 0.7].mean() > 4


def test_disease_leaves_eye_and_camera_alone():
    healthy, ill = draw_case(9, NORMAL), draw_case(9, SEVERE)
    assert healthy.person == ill.person
    assert healthy.eye.disc == ill.eye.disc
    assert healthy.camera.gain == ill.camera.gain
    assert healthy.camera.haze == ill.camera.haze
    assert ill.lesions
    assert not healthy.lesions


def test_one_eye_does_not_depend_on_the_other():
    seed = np.random.SeedSequence(4)
    alone = sample_cases(np.random.SeedSequence(4), {"right": [NORMAL]})[0]
    left, right = sample_cases(seed, {"left": [SEVERE], "right": [NORMAL]})
    assert np.array_equal(photograph(alone, SIZE), photograph(right, SIZE))
    assert left.person == right.person
    assert left.eye.disc != right.eye.disc


@pytest.mark.parametrize("side", ["left", "right"])
def test_disc_is_bright_and_on_the_nasal_side(side: Side):
    for seed in range(4):
        case = sharp(draw_case(seed, NORMAL, side))
        image = photograph(case, SIZE)[..., 1].astype(float)
        column = np.arange(SIZE) if side == "right" else np.arange(SIZE)[::-1]
        near = frame_of(case).gaussian(case.eye.disc, case.eye.disc_axes[0] / 2)
        assert (near.sum(axis=0) * column).sum() / near.sum() > SIZE * 0.55
        opposite = near[:, ::-1]
        assert (near * image).sum() / near.sum() > 1.1 * (opposite * image).sum() / opposite.sum()


def test_vessels_taper_and_spare_the_fovea():
    for seed in range(5):
        eye = sample_eye(np.random.default_rng(seed), "right")
        assert {vessel.artery for vessel in eye.vessels} == {True, False}
        for vessel in eye.vessels:
            assert (np.diff(vessel.widths[6:]) < 0).all()
            assert np.hypot(*(vessel.points - np.array(eye.fovea)).T).min() > 0.1
        veins, arteries = (
            max(vessel.widths.max() for vessel in eye.vessels if vessel.artery is artery) for artery in (False, True)
        )
        assert arteries < veins * 1.1


def test_picture_scales_with_its_size():
    case = sharp(draw_case(3, SEVERE))
    for kind in ("drusen", "blot haemorrhages"):
        lesions = sample_lesions(np.random.default_rng(0), case.eye, kind, 12, "posterior pole")
        shares = [
            lesion_mask(lesions, Frame(size=size, radius=0.98, side="right")).mean() for size in (96, 128, 256, 512)
        ]
        assert shares == pytest.approx([shares[2]] * 4, rel=0.1)


def test_places_are_named_from_the_geometry():
    eye = replace(sample_eye(np.random.default_rng(0), "left"), fovea=(0.0, 0.0), disc=(0.7, -0.05))
    around = 0.2 * np.column_stack([np.cos(np.arange(8)), np.sin(np.arange(8))])
    assert locate(around, eye) == "near the macula"
    assert locate(around - 0.5, eye) == "in the superior temporal quadrant"
    assert locate(around + 0.5, eye) == "in the inferior nasal quadrant"
    assert locate(around * np.array([4, 1]) + np.array([0, 0.6]), eye) == "in the inferior retina"
    assert locate(around * 4, eye) == "scattered over the posterior pole"


@pytest.mark.parametrize(
    ("count", "wording"), [(1, "a single druse near"), (4, "a few drusen"), (12, "several"), (40, "numerous")]
)
def test_amounts_are_worded(count: int, wording: str):
    eye = sample_eye(np.random.default_rng(0), "left")
    drusen = sample_lesions(np.random.default_rng(0), eye, "drusen", count, "macula")
    assert len(drusen.outlines) == count
    texts = describe(["dry age-related macular degeneration"], [drusen], eye, np.random.default_rng(0))
    assert any(text.startswith(wording) for text, _ in texts)
    assert any("left eye" in text for text, _ in texts)


def test_every_diagnosis_draws_and_words_what_it_promises():
    for name, diagnosis in DIAGNOSES.items():
        case = draw_case(11, name)
        required = {kind for kind, fewest, _, _ in diagnosis.lesions if fewest}
        allowed = {kind: (fewest, most) for kind, fewest, most, _ in diagnosis.lesions}
        assert required <= {lesions.kind for lesions in case.lesions} <= set(allowed)
        assert all(allowed[item.kind][0] <= item.count <= allowed[item.kind][1] for item in case.lesions)
        texts = [text for text, label in describe([name], list(case.lesions), case.eye, np.random.default_rng(0))]
        assert all("|" not in text for text in texts)
        assert len(set(texts)) == len(texts)
        if case.lesions:
            assert all(item.kind.split()[-1].rstrip("s") in texts[-1] for item in case.lesions)


def test_lesions_of_an_occluded_vein_share_their_sector():
    for seed in range(6):
        case = draw_case(seed, "branch retinal vein occlusion")
        below = [centre[1] > case.eye.fovea[1] for lesions in case.lesions for centre in lesions.centres]
        assert all(below) or not any(below)
