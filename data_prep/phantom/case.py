"""A patient's eyes, with everything that is drawn and written about them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from data_prep.phantom.anatomy import Eye, Person, Side, sample_eye, sample_person
from data_prep.phantom.camera import Camera, expose, sample_camera
from data_prep.phantom.diagnoses import DIAGNOSES
from data_prep.phantom.lesions import LOOKS, Lesions, draw_lesions, sample_lesions
from data_prep.phantom.raster import Frame
from data_prep.phantom.retina import draw_background, draw_vessels


@dataclass(frozen=True, kw_only=True)
class Case:
    """One eye on one photograph.

    Attributes:
        diagnoses: Names out of `DIAGNOSES`, the first one is the main one.
        eye: Geometry, with the cup of the diagnosis.
        person: Colours.
        lesions: What the diagnoses bring.
        camera: Settings, with the haze of the diagnosis.
    """

    diagnoses: tuple[str, ...]
    eye: Eye
    person: Person
    lesions: tuple[Lesions, ...]
    camera: Camera


def sample_cases(seed: np.random.SeedSequence, diagnoses: Mapping[Side, Sequence[str]]) -> list[Case]:
    """Draw the eyes of one patient.

    Pigment, geometry and camera come from streams of their own that no diagnosis touches: the healthy version of a case
    is the same picture but for the disease, and colour and light say nothing about it.

    Args:
        seed: Of the patient.
        diagnoses: Eyes to draw and what each one has.
    """
    # One child for each side, also where only one eye is wanted: its picture must not depend on the other.
    pigment, camera_style, left, right = seed.spawn(4)
    person = sample_person(np.random.default_rng(pigment))
    cases = []
    for side, names in diagnoses.items():
        anatomy, optics, disease = (
            np.random.default_rng(child) for child in (left if side == "left" else right).spawn(3)
        )
        # Begun anew for each eye: both draw the same style from it.
        style = np.random.default_rng(camera_style)
        eye, camera = sample_eye(anatomy, side), sample_camera(style, optics)
        lesions = []
        for name in names:
            diagnosis = DIAGNOSES[name]
            for kind, fewest, most, place in diagnosis.lesions:
                count = int(disease.integers(fewest, most + 1))
                if count:
                    lesions.append(sample_lesions(disease, eye, kind, count, place))
            if diagnosis.cup:
                eye = replace(eye, cup=float(disease.uniform(*diagnosis.cup)))
            if diagnosis.haze:
                camera = replace(camera, haze=float(disease.uniform(*diagnosis.haze)))
        cases.append(Case(diagnoses=tuple(names), eye=eye, person=person, lesions=tuple(lesions), camera=camera))
    return cases


def photograph(case: Case, size: int) -> np.ndarray:
    """Draw a case, uint8 RGB [size, size, 3]."""
    frame = Frame(size=size, radius=case.camera.radius, side=case.eye.side)
    image = draw_background(case.eye, case.person, frame)
    behind = [lesions for lesions in case.lesions if LOOKS[lesions.kind].behind]
    before = [lesions for lesions in case.lesions if not LOOKS[lesions.kind].behind]
    for lesions in behind:
        draw_lesions(image, lesions, frame)
    draw_vessels(image, case.eye, case.person, frame)
    for lesions in before:
        draw_lesions(image, lesions, frame)
    return expose(image, case.camera, frame)
