"""A report on a drawn eye: several sentences, each of them true of the drawing."""

import numpy as np

from data_prep.phantom.anatomy import Eye
from data_prep.phantom.diagnoses import CATARACT, VEIN_OCCLUSION, describe_lesions, enumerate_words, is_macular
from data_prep.phantom.lesions import Lesions

LARGE_CUP = 0.6
DISC_CENTRED = -0.23  # a fovea further to the temporal side than this leaves the disc in the middle
_OPENINGS = (
    "Colour fundus photograph of the {side} eye.",
    "Fundus photograph, {side} eye, centred on the {centre}.",
    "The photograph shows the {side} fundus.",
)
_HAZE = ("The view is hazy because of opacity of the lens.", "Details are blurred by the clouded lens.")
_HEALTHY_DISC = (
    "The optic disc has clear margins and a cup to disc ratio of about {cup:.1f}.",
    "Optic disc with distinct margins, cup to disc ratio {cup:.1f}.",
)
_LARGE_CUP = (
    "The optic cup is enlarged, with a cup to disc ratio of about {cup:.1f} and a thin neuroretinal rim.",
    "Marked cupping of the optic disc, cup to disc ratio {cup:.1f}.",
)
_VESSELS = (
    "The retinal vessels have a regular course and calibre.",
    "No sheathing and no nicking of the vessels.",
)
_FINDINGS = ("There are {findings}.", "The retina shows {findings}.", "Findings are {findings}.")
_NO_LESIONS = ("No haemorrhages, exudates or new vessels are seen.", "The retina has no haemorrhages and no exudates.")
_QUIET_MACULA = ("The macula is flat with a regular reflex.", "No lesion is seen at the macula.")


def write_report(names: list[str], lesions: list[Lesions], eye: Eye, rng: np.random.Generator) -> str:
    """Word an eye from its photograph's begin to its impression, 4 to 6 sentences.

    Args:
        names: Diagnoses of the eye.
        lesions: All that was drawn.
        eye: Gives side, disc and places.
        rng: Picks the wordings.
    """

    def pick(options: tuple[str, ...], **values: str | float) -> str:
        return options[int(rng.integers(len(options)))].format(**values)

    centre = "optic disc" if eye.fovea[0] < DISC_CENTRED else "macula"
    sentences = [pick(_OPENINGS, side=eye.side, centre=centre)]
    if CATARACT in names:
        sentences.append(pick(_HAZE))
    sentences.append(pick(_LARGE_CUP if eye.cup >= LARGE_CUP else _HEALTHY_DISC, cup=eye.cup))
    # Behind a clouded lens a reader would not judge the vessels, and an occluded vein has no regular calibre.
    if not {CATARACT, VEIN_OCCLUSION} & set(names):
        sentences.append(pick(_VESSELS))
    findings = [describe_lesions(item, eye) for item in lesions]
    sentences.append(pick(_FINDINGS, findings=enumerate_words(findings)) if findings else pick(_NO_LESIONS))
    if not any(is_macular(item.centres, eye).any() for item in lesions):
        sentences.append(pick(_QUIET_MACULA))
    sentences.append(f"Impression: {' and '.join(names)}.")
    return " ".join(sentences)
