"""The data sets of one disease that MaskedCLIP's encoders are evaluated on, and PAPILA."""

from data_prep.readers.dataset import Dataset, Division, Part, Sheet, Target
from data_prep.readers.vocabulary import GLAUCOMA, GLAUCOMA_CODES, NO_GLAUCOMA, RETINOPATHY, SUSPECT
from maskedclip_composer.data.tables import Form

APTOS2019 = Dataset(
    name="aptos2019",
    title="APTOS 2019 Blindness Detection",
    role="downstream",
    kind="labelled",
    task="diabetic retinopathy, grades 0-4",
    source="https://www.kaggle.com/c/aptos2019-blindness-detection",
    licence="competition rules",
    terms="research use as the competition's rules say, no redistribution",
    citation="Asia Pacific Tele-Ophthalmology Society, 2019",
    count=3662,
    parts=(
        Part(
            images=("train_images",),
            example="<id_code>.png",
            sheets=(Sheet(paths=("train.csv",), image=("id_code",)),),
        ),
    ),
    targets={
        "grade": Target(
            classes=RETINOPATHY,
            columns=("diagnosis",),
            counts={"0": 1805, "1": 370, "2": 999, "3": 193, "4": 295},
        )
    },
    traps=("holds near-duplicates", "the labels of its test set were never published"),
)

IDRID = Dataset(
    name="idrid",
    title="IDRiD, disease grading",
    role="downstream",
    kind="labelled",
    task="diabetic retinopathy, grades 0-4; risk of macular oedema, 0-2",
    source="https://ieee-dataport.org/open-access/indian-diabetic-retinopathy-image-dataset-idrid",
    licence="CC BY 4.0",
    terms="attribution",
    citation="Porwal et al., 2018, Data 3(3)",
    count=516,
    parts=tuple(
        Part(
            images=(f"1. Original Images/{letter}. {name} Set",),
            example="IDRiD_<nnn>.jpg",
            split=split,
            sheets=(
                Sheet(
                    paths=(
                        f"2. Groundtruths/{letter}. IDRiD_Disease Grading_{name} Labels.csv",
                        f"2. Groundtruths/{letter}. *.csv",
                    ),
                    image=("Image name",),
                ),
            ),
        )
        for letter, name, split in (("a", "Training", "train"), ("b", "Testing", "test"))
    ),
    targets={
        "grade": Target(classes=RETINOPATHY, columns=("Retinopathy grade",)),
        "dme": Target(
            classes={
                "0": "no risk of macular oedema",
                "1": "low risk of macular oedema",
                "2": "high risk of macular oedema",
            },
            columns=("Risk of macular edema",),
        ),
    },
    traps=("six pairs of identical photographs, four of them with different labels, one across the split",),
)

MESSIDOR2 = Dataset(
    name="messidor2",
    title="MESSIDOR-2, grades of Google Brain",
    role="downstream",
    kind="labelled",
    task="diabetic retinopathy, grades 0-4; macular oedema",
    source="https://www.adcis.net/en/third-party/messidor2/ and "
    "https://www.kaggle.com/datasets/google-brain/messidor2-dr-grades",
    licence="ADCIS agreement",
    terms="research use on agreement, no redistribution",
    citation="Decencière et al., 2014, Image Analysis & Stereology 33; Krause et al., 2018, Ophthalmology 125",
    count=1748,
    parts=(
        Part(
            images=("IMAGES", "images"),
            example="<name>.<png|JPG>",
            sheets=(Sheet(paths=("messidor_data.csv",), image=("image_id",)),),
            pairs=("messidor-2.csv",),
        ),
    ),
    targets={
        "grade": Target(
            classes=RETINOPATHY,
            columns=("adjudicated_dr_grade",),
            counts={"0": 1017, "1": 270, "2": 347, "3": 75, "4": 35},
        ),
        "dme": Target(
            classes={"0": "no referable macular oedema", "1": "referable macular oedema"}, columns=("adjudicated_dme",)
        ),
    },
    traps=("MESSIDOR-1 is another set with other grades", "four photographs are ungradable and have no grade"),
)

GLAUCOMA_FUNDUS = Dataset(
    name="glaucoma-fundus",
    title="Glaucoma Fundus",
    role="downstream",
    kind="labelled",
    task="normal, early glaucoma, advanced glaucoma",
    source="https://doi.org/10.7910/DVN/1YRRAC",
    licence="Harvard Dataverse terms (CC0, check at the source)",
    terms="as stated at the source",
    citation="Ahn et al., 2018, PLOS ONE 13",
    count=1544,
    cropped=True,
    parts=(
        Part(
            images=(".",),
            example="{normal_control,early_glaucoma,advanced_glaucoma}/<n>.png",
            pattern=r"(^|/)(?P<label>normal_control|early_glaucoma|advanced_glaucoma)/",
        ),
    ),
    targets={
        "glaucoma": Target(
            classes={
                "normal_control": NO_GLAUCOMA,
                "early_glaucoma": "early glaucoma",
                "advanced_glaucoma": "advanced glaucoma",
            },
            counts={"normal_control": 788, "early_glaucoma": 289, "advanced_glaucoma": 467},
        )
    },
    traps=("regions of about 240 pixels around the disc",),
)

ORIGA = Dataset(
    name="origa",
    title="ORIGA-light",
    role="downstream",
    kind="labelled",
    task="glaucoma",
    source="https://www.kaggle.com/datasets/arnavjain1/glaucoma-datasets",
    licence="research use; no open host",
    terms="ask the authors before anything else",
    citation="Zhang et al., 2010, EMBC",
    count=650,
    parts=(
        Part(
            images=("ORIGA/Images", "Images"),
            example="<nnn>.jpg",
            sheets=(
                Sheet(
                    paths=("OrigaList.csv",),
                    image=("Filename",),
                    eye=("Eye",),
                    split=("Set",),
                    splits={"A": "train", "B": "test"},
                ),
                Sheet(paths=("origa_info.csv",), image=("Image",)),
            ),
        ),
    ),
    targets={
        "glaucoma": Target(classes=GLAUCOMA_CODES, columns=("Glaucoma", "Label"), counts={"0": 482, "1": 168}),
    },
    traps=("the split of MaskedCLIP is unknown: the authors' sets A and B are kept as train and test",),
)

PAPILA = Dataset(
    name="papila",
    title="PAPILA",
    role="downstream",
    kind="labelled",
    task="healthy, glaucoma, suspected glaucoma",
    source="https://doi.org/10.6084/m9.figshare.14798004",
    licence="CC BY 4.0 (check at the source)",
    terms="attribution",
    citation="Kovalyk et al., 2022, Scientific Data 9",
    count=488,
    parts=tuple(
        Part(
            images=("FundusImages",),
            example=f"RET<nnn>{eye}.jpg",
            sheets=(
                Sheet(
                    paths=(f"ClinicalData/patient_data_{eye.lower()}.xlsx",),
                    form=Form(header_rows=3),
                    image=("ID", "column 1"),
                    rename=(r"^#?(\d+)$", rf"RET\g<1>{eye}"),
                ),
            ),
            pattern=rf"^RET(?P<patient>\d+)(?P<eye>{eye})\.",
            ignore=rf"(?<!{eye})\.[a-z]+$",
        )
        for eye in ("OD", "OS")
    ),
    targets={
        "glaucoma": Target(classes={"0": NO_GLAUCOMA, "1": GLAUCOMA, "2": SUSPECT}, columns=("Diagnosis",)),
    },
    traps=("two rows of its header are below the first",),
    division=Division(test=0.2),
)

DATASETS = (APTOS2019, IDRID, MESSIDOR2, GLAUCOMA_FUNDUS, ORIGA, PAPILA)
