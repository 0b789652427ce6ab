"""The data sets of many diseases that MaskedCLIP's encoders are evaluated on."""

from data_prep.readers.dataset import Dataset, Part, Target
from data_prep.readers.vocabulary import GLAUCOMA, NORMAL, RETINOPATHY, SUSPECT

_JSIEC_CLASSES = {
    "0.0.Normal": NORMAL,
    "0.1.Tessellated fundus": "tessellated fundus",
    "0.2.Large optic cup": "large optic cup",
    "0.3.DR1": RETINOPATHY["1"],
    "1.0.DR2": RETINOPATHY["2"],
    "1.1.DR3": RETINOPATHY["4"],
    "2.0.BRVO": "branch retinal vein occlusion",
    "2.1.CRVO": "central retinal vein occlusion",
    "3.RAO": "retinal artery occlusion",
    "4.Rhegmatogenous RD": "rhegmatogenous retinal detachment",
    "5.0.CSCR": "central serous chorioretinopathy",
    "5.1.VKH disease": "Vogt-Koyanagi-Harada disease",
    "6.Maculopathy": "maculopathy",
    "7.ERM": "epiretinal membrane",
    "8.MH": "macular hole",
    "9.Pathological myopia": "pathological myopia",
    "10.0.Possible glaucoma": SUSPECT,
    "10.1.Optic atrophy": "optic atrophy",
    "11.Severe hypertensive retinopathy": "severe hypertensive retinopathy",
    "12.Disc swelling and elevation": "disc swelling and elevation",
    "13.Dragged Disc": "dragged disc",
    "14.Congenital disc abnormality": "congenital disc abnormality",
    "15.0.Retinitis pigmentosa": "retinitis pigmentosa",
    "15.1.Bietti crystalline dystrophy": "Bietti crystalline dystrophy",
    "16.Peripheral retinal degeneration and break": "peripheral retinal degeneration and break",
    "17.Myelinated nerve fiber": "myelinated nerve fibres",
    "18.Vitreous particles": "vitreous particles",
    "19.Fundus neoplasm": "fundus neoplasm",
    "20.Massive hard exudates": "massive hard exudates",
    "21.Yellow-white spots-flecks": "yellow-white spots or flecks",
    "22.Cotton-wool spots": "cotton-wool spots",
    "23.Vessel tortuosity": "vessel tortuosity",
    "24.Chorioretinal atrophy-coloboma": "chorioretinal atrophy or coloboma",
    "25.Preretinal hemorrhage": "preretinal haemorrhage",
    "26.Fibrosis": "fibrosis",
    "27.Laser Spots": "laser spots",
    "28.Silicon oil in eye": "silicone oil in the eye",
    "29.0.Blur fundus without PDR": "blurred fundus without proliferative diabetic retinopathy",
    "29.1.Blur fundus with suspected PDR": "blurred fundus with suspected proliferative diabetic retinopathy",
}

JSIEC = Dataset(
    name="jsiec",
    title="JSIEC, 1000 images of 39 classes",
    role="downstream",
    kind="labelled",
    task="39 diseases and states",
    source="https://zenodo.org/records/3477553",
    licence="CC BY 4.0 (check at the source)",
    terms="attribution",
    citation="Cen et al., 2021, Nature Communications 12",
    count=1000,
    parts=(
        Part(
            images=(".",),
            example="{0.0.Normal,...,29.1.Blur fundus with suspected PDR}/<name>.JPG",
            pattern=r"(^|/)(?P<label>\d+\.[^/]+)/[^/]+$",
        ),
    ),
    targets={"disease": Target(classes=_JSIEC_CLASSES)},
    traps=("some file names end in ..JPG", "the smallest classes have about five photographs"),
)

RETINA = Dataset(
    name="retina",
    title="Retina (cataract dataset)",
    role="downstream",
    kind="labelled",
    task="normal, cataract, glaucoma, other retinal disease",
    source="https://www.kaggle.com/datasets/jr2ngb/cataractdataset",
    licence="none stated",
    terms="provenance unknown",
    citation="Kaggle, jr2ngb, 2019",
    count=601,
    parts=(
        Part(
            images=("dataset", "."),
            example="{1_normal/NL,2_cataract/cataract,2_glaucoma/Glaucoma,3_retina_disease/Retina}_<nnn>.png",
            pattern=r"(^|/)(?P<label>1_normal|2_cataract|2_glaucoma|3_retina_disease)/",
        ),
    ),
    targets={
        "disease": Target(
            classes={
                "1_normal": NORMAL,
                "2_cataract": "cataract",
                "2_glaucoma": GLAUCOMA,
                "3_retina_disease": "other retinal disease",
            },
            counts={"1_normal": 300, "2_cataract": 100, "2_glaucoma": 101, "3_retina_disease": 100},
        )
    },
)

DATASETS = (JSIEC, RETINA)
