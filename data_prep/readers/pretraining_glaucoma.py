"""MaskedCLIP's unpaired data sets of glaucoma."""

from data_prep.readers.dataset import Dataset, Part, Sheet, Target
from data_prep.readers.vocabulary import GLAUCOMA, GLAUCOMA_CODES, NO_GLAUCOMA, SUSPECT
from maskedclip_composer.data.tables import Form

DRISHTI_GS = Dataset(
    name="drishti-gs",
    title="Drishti-GS1",
    role="unpaired",
    kind="unpaired",
    task="glaucoma",
    source="https://cvit.iiit.ac.in/projects/mip/drishti-gs/mip-dataset2/Home.php",
    licence="own terms, free to use",
    terms="registration for the ground truth of the test set",
    citation="Sivaswamy et al., 2014, ISBI",
    count=101,
    parts=tuple(
        Part(
            images=(f"{folder}/Images",),
            example="drishtiGS_<nnn>.png",
            split=split,
            sheets=(
                Sheet(
                    paths=("Drishti-GS1_diagnosis.xlsx",),
                    form=Form(skip=3, header_rows=2),
                    key=(("Drishti-GS File", "column 2"),),
                    rename=(r"[^0-9]+$", ""),  # every name ends in a stray quotation mark
                ),
            ),
            pattern=r"(?P<key>drishtiGS_\d+)",
        )
        for folder, split in (("Training", "train"), ("Test", "test"))
    ),
    targets={
        "glaucoma": Target(
            classes={"Normal": NO_GLAUCOMA, "Glaucomatous": GLAUCOMA},
            columns=("Total", "column 9"),
            counts={"Normal": 31, "Glaucomatous": 70},
        )
    },
    traps=("mirrors nest the folder in one of the same name",),
)

ACRIMA = Dataset(
    name="acrima",
    title="ACRIMA",
    role="unpaired",
    kind="unpaired",
    task="glaucoma",
    source="https://doi.org/10.6084/m9.figshare.7613135",
    licence="CC BY 4.0 (check at the source)",
    terms="attribution",
    citation="Diaz-Pinto et al., 2019, BioMedical Engineering OnLine 18",
    count=705,
    cropped=True,
    parts=(Part(images=(".",), example="Im<nnn>_<g_|>ACRIMA.jpg", pattern=r"Im\d+_(?P<label>g_ACRIMA|ACRIMA)"),),
    targets={
        "glaucoma": Target(
            classes={"ACRIMA": NO_GLAUCOMA, "g_ACRIMA": GLAUCOMA}, counts={"ACRIMA": 309, "g_ACRIMA": 396}
        )
    },
    traps=("regions around the optic disc, no whole fundus",),
)


def _refuge(split: str, folders: tuple[str, ...], sheets: tuple[str, ...]) -> Part:
    return Part(
        images=(*folders, f"{split}/Images"),
        example="<V|T><nnnn>.jpg",
        split=split,
        optional=True,
        sheets=(Sheet(paths=(*sheets, f"{split}/index.json"), image=("ImgName",)),),
        sheet_optional=True,
    )


REFUGE = Dataset(
    name="refuge",
    title="REFUGE",
    role="unpaired",
    kind="unpaired",
    task="glaucoma",
    source="https://refuge.grand-challenge.org",
    licence="challenge terms",
    terms="registration, research use",
    citation="Orlando et al., 2020, Medical Image Analysis 59",
    count=1200,
    parts=(
        Part(
            images=("Training400", "train/Images"),
            example="{Glaucoma/g<nnnn>.jpg,Non-Glaucoma/n<nnnn>.jpg}",
            split="train",
            pattern=r"(^|/)(?P<label>[gn])\d+\.",
        ),
        _refuge(
            "val",
            ("REFUGE-Validation400", "Validation400"),
            ("REFUGE-Validation400-GT/Glaucoma_label_and_Fovea_location.xlsx", "Fovea_locations.xlsx"),
        ),
        _refuge(
            "test",
            ("Test400", "REFUGE-Test400"),
            ("REFUGE-Test-GT/Glaucoma_label_and_Fovea_location.xlsx", "REFUGE-Test-GT/*.xlsx"),
        ),
    ),
    targets={
        "glaucoma": Target(
            classes={**GLAUCOMA_CODES, "n": NO_GLAUCOMA, "g": GLAUCOMA},
            columns=("Label(Glaucoma=1)", "Glaucoma Label", "Label"),
            counts={"0": 1080, "1": 120},
        )
    },
    traps=("REFUGE2 holds it whole", "training is by another camera than validation and test"),
)

LAG = Dataset(
    name="lag",
    title="LAG",
    role="unpaired",
    kind="unpaired",
    task="suspected glaucoma",
    source="https://github.com/smilell/AG-CNN (on request)",
    licence="none stated",
    terms="on request, research use",
    citation="Li et al., 2019, CVPR",
    count=4854,
    cropped=True,
    parts=(
        Part(
            images=(".",),
            example="{suspicious_glaucoma,non_glaucoma}/image/<n>.jpg",
            pattern=r"(^|/)(?P<label>suspicious_glaucoma|non_glaucoma)/image/",
            ignore=r"(^|/)(attention_map|label)/",
        ),
    ),
    targets={
        "glaucoma": Target(
            classes={"non_glaucoma": NO_GLAUCOMA, "suspicious_glaucoma": SUSPECT},
            counts={"non_glaucoma": 3143, "suspicious_glaucoma": 1711},
        )
    },
    traps=("other releases count 5,824 and 11,760",),
)

GRAPE = Dataset(
    name="grape",
    title="GRAPE",
    role="unpaired",
    kind="unpaired",
    task="kind of glaucoma",
    source="https://doi.org/10.6084/m9.figshare.c.6406319",
    licence="CC BY 4.0",
    terms="attribution",
    citation="Huang et al., 2023, Scientific Data 10",
    count=631,
    parts=(
        Part(
            images=("CFPs",),
            example="<subject>_<OD|OS>_<visit>.jpg",
            sheets=(
                Sheet(
                    paths=("VF and clinical information.xlsx",),
                    form=Form(sheet="Baseline", header_rows=2),
                    key=(("Subject Number", "column 1"), ("Laterality", "column 2")),
                ),
            ),
            sheet_optional=True,
            pattern=r"^(?P<key>(?P<patient>\d+)_(?P<eye>OD|OS))_\d+",
        ),
    ),
    targets={"subtype": Target(classes=None, columns=("Category of Glaucoma", "Glaucoma Category", "column 11"))},
    traps=("several visits of each patient: never split by photograph", "RAR archives: unpack them with bsdtar"),
)

CHAKSU = Dataset(
    name="chaksu",
    title="Chákṣu",
    role="unpaired",
    kind="unpaired",
    task="suspected glaucoma, majority of five experts",
    source="https://doi.org/10.6084/m9.figshare.20123135",
    licence="CC BY 4.0",
    terms="attribution",
    citation="Kumar et al., 2023, Scientific Data 10",
    count=1345,
    parts=tuple(
        Part(
            images=(f"{folder}/1.0_Original_Fundus_Images/{camera}",),
            example=f"<name>{suffix}",
            split=split,
            sheets=(
                Sheet(
                    paths=(f"{folder}/6.0_Glaucoma_Decision/Glaucoma_Decision_Comparison_{camera}_majority.csv",),
                    image=("Images",),
                    rename=(r"\..*$", ""),  # `Image101.jpg-Image101-1.jpg`, or .tif for what is .JPG on disk
                ),
            ),
        )
        for folder, split in (("Train", "train"), ("Test", "test"))
        for camera, suffix in (("Bosch", ".JPG"), ("Forus", ".png"), ("Remidio", ".JPG"))
    ),
    targets={
        "glaucoma": Target(
            classes={"NORMAL": NO_GLAUCOMA, "GLAUCOMA SUSPECT": SUSPECT, "GLAUCOMA SUSUPECT": SUSPECT},
            columns=("Majority Decision", "Glaucoma Decision"),
        )
    },
    traps=("upright frames", "eleven gigabytes of archives"),
)

DATASETS = (DRISHTI_GS, ACRIMA, REFUGE, LAG, GRAPE, CHAKSU)
