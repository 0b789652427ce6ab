"""Categories that several data sets share: equal strings are positives of each other across sets."""

RETINOPATHY = {
    "0": "no diabetic retinopathy",
    "1": "mild non-proliferative diabetic retinopathy",
    "2": "moderate non-proliferative diabetic retinopathy",
    "3": "severe non-proliferative diabetic retinopathy",
    "4": "proliferative diabetic retinopathy",
}
"""International clinical diabetic retinopathy severity scale (Wilkinson et al., 2003)."""

NO_GLAUCOMA, SUSPECT, GLAUCOMA = "no glaucoma", "suspected glaucoma", "glaucoma"
GLAUCOMA_CODES = {"0": NO_GLAUCOMA, "1": GLAUCOMA}
NORMAL = "normal fundus"
