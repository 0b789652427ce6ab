"""Public data sets in place of the ten private ones of MaskedCLIP, and a reader of any folder of class folders.

Those with many findings in one photograph are in `substitutes_findings.py`.
"""

from data_prep.readers.dataset import Cell, Dataset, Entry, Part, Sheet, Target
from data_prep.readers.texts import sentence
from data_prep.readers.vocabulary import GLAUCOMA_CODES, RETINOPATHY
from maskedclip_composer.data.cells import cell_text, cell_texts
from maskedclip_composer.data.tables import Form

EYEPACS_TEST = Dataset(
    name="eyepacs-test",
    title="EyePACS, test set (Kaggle Diabetic Retinopathy Detection)",
    role="substitute",
    kind="unpaired",
    task="diabetic retinopathy, grades 0-4",
    source="https://www.kaggle.com/c/diabetic-retinopathy-detection",
    licence="competition rules",
    terms="research use as the competition's rules say, no redistribution",
    citation="EyePACS and Kaggle, 2015; Cuadros and Bresnick, 2009",
    count=53576,
    parts=(
        Part(
            images=("test",),
            example="<n>_<left|right>.jpeg",
            sheets=(
                Sheet(
                    paths=("retinopathy_solution.csv",),
                    image=("image",),
                    split=("Usage",),
                    splits={"Public": "val", "Private": "test"},
                ),
            ),
            sheet_optional=True,
            pattern=r"(?P<patient>\d+)_(?P<eye>left|right)",
        ),
    ),
    targets={"grade": Target(classes=RETINOPATHY, columns=("level",))},
)

DDR = Dataset(
    name="ddr",
    title="DDR, grading",
    role="substitute",
    kind="unpaired",
    task="diabetic retinopathy, grades 0-4",
    source="https://github.com/nkicsl/DDR-dataset",
    licence="none stated",
    terms="research use",
    citation="Li et al., 2019, Information Sciences 501",
    count=13673,
    parts=tuple(
        Part(
            images=(f"DR_grading/{folder}",),
            example="<name>.jpg",
            split=split,
            sheets=(Sheet(paths=(f"DR_grading/{folder}.txt",), form=Form(names=("image", "grade"))),),
        )
        for folder, split in (("train", "train"), ("valid", "val"), ("test", "test"))
    ),
    targets={
        "grade": Target(
            classes=RETINOPATHY,
            columns=("grade",),
            left_out={"5": "is ungradable"},
            counts={"0": 6266, "1": 630, "2": 4477, "3": 236, "4": 913},
        )
    },
    traps=("1,151 photographs are ungradable (grade 5) and left out",),
)

G1020 = Dataset(
    name="g1020",
    title="G1020",
    role="substitute",
    kind="unpaired",
    task="glaucoma",
    source="https://www.dfki.uni-kl.de/g1020",
    licence="none stated",
    terms="research use",
    citation="Bajwa et al., 2020, IJCNN",
    count=1020,
    parts=(
        Part(
            images=("G1020/Images", "Images"),
            example="image_<n>.jpg",
            sheets=(Sheet(paths=("G1020.csv",), image=("imageID",)),),
        ),
    ),
    targets={"glaucoma": Target(classes=GLAUCOMA_CODES, columns=("binaryLabels",), counts={"0": 724, "1": 296})},
)


def _deepeyenet(cell: Cell, columns: tuple[str, ...]) -> list[Entry]:
    description = cell_text(cell("clinical-description", "clinical_description"))
    keywords = ", ".join(cell_texts(cell("keywords"), None))
    texts = tuple(sentence(text) for text in (description, keywords) if text)
    return [Entry(image=cell_text(cell("image")), texts=texts)]


DEEPEYENET = Dataset(
    name="deepeyenet",
    title="DeepEyeNet",
    role="substitute",
    kind="paired",
    task="description and keywords as texts",
    source="https://github.com/Jhhuangkay/DeepOpht-Medical-Report-Generation-for-Retinal-Images (on request)",
    licence="none stated",
    terms="on request, research use",
    citation="Huang et al., 2021, WACV",
    count=15710,
    parts=tuple(
        Part(
            images=(f"{folder}_set",),
            example="<name>.jpg",
            split=split,
            sheets=(Sheet(paths=(f"DeepEyeNet_{name}.json",), entries=_deepeyenet),),
        )
        for folder, name, split in (("train", "train", "train"), ("val", "valid", "val"), ("test", "test", "test"))
    ),
    traps=("holds fluorescein angiograms too",),
)

MM_RETINAL = Dataset(
    name="mm-retinal",
    title="MM-Retinal v1, colour photographs",
    role="substitute",
    kind="paired",
    task="caption as text",
    source="https://github.com/lxirich/MM-Retinal",
    licence="unclear: scans of books",
    terms="research use; do not redistribute",
    citation="Wu et al., 2024, MICCAI",
    count=2167,
    parts=(
        Part(
            images=("CFP",),
            example="<Image_ID>.<jpg|png>",
            sheets=(Sheet(paths=("CFP_translated_v1.csv",), image=("Image_ID",), text=("en_caption",)),),
        ),
    ),
)

CHASE_DB1 = Dataset(
    name="chase-db1",
    title="CHASE_DB1",
    role="substitute",
    kind="unpaired",
    task="none (vessel maps are not read)",
    source="https://researchdata.kingston.ac.uk/96/",
    licence="CC BY 4.0",
    terms="attribution",
    citation="Fraz et al., 2012, IEEE Transactions on Biomedical Engineering 59",
    count=28,
    parts=(
        Part(
            images=("CHASEDB1", "images", "."),
            example="Image_<nn><L|R>.jpg",
            pattern=r"Image_(?P<patient>\d+)(?P<eye>[LR])\.",
            ignore=r"_(1st|2nd)HO\.",
        ),
    ),
)

LES_AV = Dataset(
    name="les-av",
    title="LES-AV",
    role="substitute",
    kind="unpaired",
    task="none (vessel maps are not read)",
    source="https://doi.org/10.6084/m9.figshare.11857698",
    licence="CC BY 4.0",
    terms="attribution",
    citation="Orlando et al., 2018, MICCAI",
    count=22,
    parts=(
        Part(
            images=("LES-AV/images", "images", "."),
            example="<n>.png",
            pattern=r"^\d+\.",
            ignore=r"^(arteries-and-veins|vessel-segmentations|masks?)/",
        ),
    ),
)

CLASS_FOLDERS = Dataset(
    name="class-folders",
    title="photographs in one folder per class",
    role="own",
    kind="labelled",
    task="the folder's name",
    source="your own photographs",
    licence="",
    terms="your own",
    citation="",
    parts=(
        Part(
            images=(".",),
            example="[<train|val|test>/]<class>/<name>.jpg",
            pattern=r"^(?:(?P<split>train|val|test)/)?(?P<label>[^/]+)/",
        ),
    ),
    targets={"class": Target(classes=None)},
)

DATASETS = (EYEPACS_TEST, DDR, G1020, DEEPEYENET, MM_RETINAL, CHASE_DB1, LES_AV, CLASS_FOLDERS)
