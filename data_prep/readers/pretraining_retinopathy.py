"""MaskedCLIP's unpaired data sets of diabetic retinopathy and of many diseases."""

from data_prep.readers.dataset import Cell, Dataset, Entry, Part, Sheet, Target
from data_prep.readers.vocabulary import GLAUCOMA, NORMAL, RETINOPATHY
from maskedclip_composer.data.cells import cell_text
from maskedclip_composer.data.tables import Form

PARAGUAY = Dataset(
    name="paraguay",
    title="Paraguay (Universidad Nacional de Asunción)",
    role="unpaired",
    kind="unpaired",
    task="diabetic retinopathy, seven stages",
    source="https://zenodo.org/records/4647952",
    licence="CC BY 4.0",
    terms="attribution",
    citation="Castillo Benítez et al., 2021, Data in Brief 36",
    count=757,
    parts=(
        Part(
            images=(".",),
            example="{1. No DR signs,2. Mild (or early) NPDR,...,7. Advanced PDR}/<name>.jpg",
            pattern=r"(^|/)(?P<label>[1-7])\. [^/]+/[^/]+$",
        ),
    ),
    # Field practice: the very severe stage of NPDR is severe, both stages of PDR are proliferative.
    targets={
        "grade": Target(
            classes={
                "1": RETINOPATHY["0"],
                "2": RETINOPATHY["1"],
                "3": RETINOPATHY["2"],
                "4": RETINOPATHY["3"],
                "5": RETINOPATHY["3"],
                "6": RETINOPATHY["4"],
                "7": RETINOPATHY["4"],
            },
            counts={"1": 187, "2": 4, "3": 80, "4": 176 + 108, "6": 88 + 114},
        )
    },
    traps=("others map stage 5 to proliferative", "the mild class has four photographs"),
)


def _grade_of_eye(cell: Cell, columns: tuple[str, ...]) -> list[Entry]:
    image = cell_text(cell("image_id"))
    side = "left" if "_l" in image.lower() else "right"
    label = cell_text(cell(f"{side}_eye_DR_Level")).removesuffix(".0")
    return [Entry(image=image, label=label, patient=cell_text(cell("patient_id")), eye=side)]


_DEEPDRID_NAME = r"(?P<patient>\d+)_(?P<eye>[lr])\d"
DEEPDRID = Dataset(
    name="deepdrid",
    title="DeepDRiD, regular fundus images",
    role="unpaired",
    kind="unpaired",
    task="diabetic retinopathy, grades 0-4 of each eye",
    source="https://github.com/deepdrdoc/DeepDRiD",
    licence="CC BY-SA 4.0",
    terms="attribution, share alike",
    citation="Liu et al., 2022, Patterns 3(6)",
    count=2000,
    parts=(
        *(
            Part(
                images=(f"regular-fundus-{name}/Images", f"regular-fundus-{name}"),
                example="<patient>/<patient>_<l|r><k>.jpg",
                split=split,
                sheets=(Sheet(paths=(f"regular-fundus-{name}.csv",), entries=_grade_of_eye),),
                pattern=_DEEPDRID_NAME,
            )
            for name, split in (("training", "train"), ("validation", "val"))
        ),
        Part(
            images=("Online-Challenge1&2-Evaluation/Images",),
            example="<patient>/<patient>_<l|r><k>.jpg",
            split="test",
            sheets=(Sheet(paths=("Challenge1_labels.xlsx", "Challenge1_labels.csv"), image=("image_id",)),),
            sheet_optional=True,
            optional=True,
            pattern=_DEEPDRID_NAME,
        ),
    ),
    targets={"grade": Target(classes=RETINOPATHY, columns=("DR_Levels", "DR_Level"), left_out={"5": "is ungradable"})},
    traps=(
        "the ultra-widefield images are another modality and stay out",
        "eleven training views have no grade",
        "some photographs have a white surround and a burnt-in number",
    ),
)

HRF = Dataset(
    name="hrf",
    title="HRF (High-Resolution Fundus)",
    role="unpaired",
    kind="unpaired",
    task="diabetic retinopathy, glaucoma, healthy",
    source="https://www5.cs.fau.de/research/data/fundus-images/",
    licence="CC BY 4.0",
    terms="attribution",
    citation="Budai et al., 2013, International Journal of Biomedical Imaging",
    count=45,
    parts=(
        Part(
            images=("images", "."),
            example="<nn>_<dr.JPG|g.jpg|h.jpg>",
            pattern=r"^\d+_(?P<label>dr|g|h)\.",
            ignore=r"^(manual1|mask)/",
        ),
    ),
    targets={
        "disease": Target(
            classes={"h": NORMAL, "dr": "diabetic retinopathy", "g": GLAUCOMA}, counts={"h": 15, "dr": 15, "g": 15}
        )
    },
    traps=("HRF-AV and HRF-Seg+ are the same photographs",),
)

SUSTECH_SYSU = Dataset(
    name="sustech-sysu",
    title="SUSTech-SYSU",
    role="unpaired",
    kind="unpaired",
    task="diabetic retinopathy by three scales",
    source="https://doi.org/10.6084/m9.figshare.12570770",
    licence="CC BY 4.0",
    terms="attribution",
    citation="Lin et al., 2020, Scientific Data 7",
    count=1219,
    parts=(
        Part(
            images=("originalImages",),
            example="<nnnn>.jpg",
            sheets=(
                Sheet(
                    paths=("drLabels.csv", "drLables.csv", "Labels.csv"),
                    image=("Fundus_images",),
                    eye=("left_versus_right_eye(left_0_right_1)",),
                    eyes={"0": "left", "1": "right"},
                ),
            ),
            corrections=("c5_DR_reclassified.csv",),
        ),
    ),
    targets={
        "grade": Target(
            classes=RETINOPATHY,
            columns=("DR_grade(International_Clinical_DR_Severity_Scale)",),
            left_out={"5": "shows laser spots or scars and has no other grade"},
        ),
        "aao": Target(
            classes=RETINOPATHY,
            columns=("DR_grade(American_Academy_of_Ophthalmology)",),
            left_out={"5": "shows laser spots or scars and has no other grade"},
        ),
    },
    traps=("grade 5 is laser treatment: c5_DR_reclassified.csv grades it again",),
)

FIVES = Dataset(
    name="fives",
    title="FIVES",
    role="unpaired",
    kind="unpaired",
    task="age-related macular degeneration, diabetic retinopathy, glaucoma, normal",
    source="https://doi.org/10.6084/m9.figshare.19688169",
    licence="CC BY 4.0",
    terms="attribution",
    citation="Jin et al., 2022, Scientific Data 9",
    count=800,
    parts=tuple(
        Part(
            images=(f"{split}/Original",), example="<n>_<A|D|G|N>.png", split=split, pattern=r"\d+_(?P<label>[ADGN])\."
        )
        for split in ("train", "test")
    ),
    targets={
        "disease": Target(
            classes={
                "N": NORMAL,
                "A": "age-related macular degeneration",
                "D": "diabetic retinopathy",
                "G": GLAUCOMA,
            },
            counts={"N": 200, "A": 200, "D": 200, "G": 200},
        )
    },
    traps=("a RAR5 archive: unpack it with bsdtar",),
)

_STARE_NAMES = ("image", "codes", "diagnosis")
STARE = Dataset(
    name="stare",
    title="STARE",
    role="unpaired",
    kind="unpaired",
    task="diagnosis as written; --kind paired makes it the text",
    source="https://cecas.clemson.edu/~ahoover/stare/",
    licence="none stated",
    terms="research use; ask before anything else",
    citation="Hoover et al., 2000, IEEE Transactions on Medical Imaging 19",
    count=397,
    parts=(
        Part(
            images=("all-images", "images", "."),
            example="im<nnnn>.ppm",
            sheets=tuple(
                Sheet(
                    paths=paths,
                    form=Form(names=_STARE_NAMES, delimiter=delimiter),
                    text=("diagnosis",),
                    no_text=frozenset({"unknown diagnosis", "unknown"}),
                )
                for paths, delimiter in (
                    (("all-mg-codes.txt", "diagnosis.txt", "diagnoses.txt"), "\t"),
                    (("all-mg-codes.csv",), ";"),
                )
            ),
            pattern=r"im\d+\.",
            ignore=r"(^|/)labels-[^/]*/",
        ),
    ),
    traps=("scans of film", "nine diagnoses are unknown, some texts hold advice or two diagnoses"),
)

DATASETS = (PARAGUAY, DEEPDRID, HRF, SUSTECH_SYSU, FIVES, STARE)
