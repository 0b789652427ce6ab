"""A report on a drawn eye: several sentences, each of them true of the drawing."""

import numpy as np

from data_prep.phantom.anatomy import Eye
from data_prep.phantom.diagnoses import CATARACT, NORMAL, describe_lesions, locate
from data_prep.phantom.lesions import Lesions

LARGE_CUP = 0.6
_OPENINGS = (
    "Colour fundus photograph of the {side} eye.",
    "Fundus photograph, {side} eye, centred on the posterior pole.",
    "The photograph shows the {side} fundus.",
)
_HEALTHY_DISC = (
    "The optic disc has clear margins and a cup to disc ratio of about {cup:.1f}.",
    "Optic disc with distinct margins, cup to disc ratio {cup:.1f}.",
)
_LARGE_CUP = (
    "The optic cup is enlarged, with a cup to disc ratio of about {cup:.1f} and a thin neuroretinal rim.",
    "Marked cupping of the optic disc, cup to disc ratio {cup:.1f}.",
)
_FINDINGS = ("There are {findings}.", "The retina shows {findings}.", "Findings are {findings}.")
_NO_LESIONS = ("No haemorrhages, exudates or new vessels are seen.", "The retina has no haemorrhages and no exudates.")
_QUIET_MACULA = ("The macula is flat with a regular reflex.", "No lesion is seen at the macula.")
_HAZE = ("The view is hazy because of opacity of the lens.", "Details are blurred by the clouded lens.")


def write_report(names: list[str], lesions: list[Lesions], eye: Eye, rng: np.random.Generator) -> str:
    """Word an eye from its photograph's begin to its impression, 4 to 7 sentences.

    Args:
        names: Diagnoses of the eye.
        lesions: All that was drawn.
        eye: Gives side, disc and places.
        rng: Picks the wordings.
    """

    def pick(options: tuple[str, ...], **values: str | float) -> str:
        return options[int(rng.integers(len(options)))].format(**values)

    sentences = [pick(_OPENINGS, side=eye.side)]
    if CATARACT in names:
        sentences.append(pick(_HAZE))
    sentences.append(pick(_LARGE_CUP if eye.cup >= LARGE_CUP else _HEALTHY_DISC, cup=eye.cup))
    findings = [describe_lesions(item, eye) for item in lesions]
    if findings:
        listed = findings[0] if len(findings) == 1 else f"{', '.join(findings[:-1])} and {findings[-1]}"
        sentences.append(pick(_FINDINGS, findings=listed))
    else:
        sentences.append(pick(_NO_LESIONS))
    if all(locate(item.centres, eye) != "near the macula" for item in lesions):
        sentences.append(pick(_QUIET_MACULA))
    sentences.append(f"Impression: {' and '.join(names) if names != [NORMAL] else 'normal fundus'}.")
    return " ".join(sentences)
