"""Public substitutes whose sheets have one column per finding: several texts for one photograph."""

from data_prep.readers.dataset import Cell, Dataset, Entry, Part, Sheet, Target
from data_prep.readers.texts import class_name
from data_prep.readers.vocabulary import NORMAL, RETINOPATHY
from maskedclip_composer.data.cells import cell_text

BRSET_FINDINGS = {
    "diabetic_retinopathy": "diabetic retinopathy",
    "macular_edema": "macular oedema",
    "scar": "chorioretinal scar",
    "nevus": "choroidal naevus",
    "amd": "age-related macular degeneration",
    "vascular_occlusion": "retinal vascular occlusion",
    "hypertensive_retinopathy": "hypertensive retinopathy",
    "drusens": "drusen",
    "hemorrhage": "retinal haemorrhage",
    "retinal_detachment": "retinal detachment",
    "myopic_fundus": "myopic fundus",
    "increased_cup_disc": "increased cup-to-disc ratio",
}


def _brset(cell: Cell, columns: tuple[str, ...]) -> list[Entry]:
    names = [name for column, name in BRSET_FINDINGS.items() if cell_text(cell(column)) == "1"]
    other = cell_text(cell("other")) == "1"
    texts = names or ([] if other else [NORMAL])
    return [
        Entry(
            image=cell_text(cell("image_id")),
            label=cell_text(cell(*columns)),
            patient=cell_text(cell("patient_id")),
            eye={"1": "right", "2": "left"}.get(cell_text(cell("exam_eye")), ""),
            texts=tuple(class_name(text) for text in texts),
        )
    ]


BRSET = Dataset(
    name="brset",
    title="BRSET",
    role="substitute",
    kind="unpaired",
    task="diabetic retinopathy, grades 0-4; thirteen findings as texts",
    source="https://physionet.org/content/brazilian-ophthalmological/",
    licence="PhysioNet Credentialed Health Data Licence",
    terms="training and agreement, no redistribution",
    citation="Nakayama et al., 2024, PLOS Digital Health 3",
    count=16266,
    parts=(
        Part(
            images=("fundus_photos",),
            example="img<nnnnn>.jpg",
            sheets=(Sheet(paths=("labels.csv", "labels_brset.csv"), entries=_brset),),
        ),
    ),
    targets={"grade": Target(classes=RETINOPATHY, columns=("DR_ICDR",))},
    traps=("the columns vessels and optic_disc hold the typing error 'bv'",),
)

RFMID_FINDINGS = {
    "DR": "diabetic retinopathy",
    "ARMD": "age-related macular degeneration",
    "MH": "media haze",
    "DN": "drusen",
    "MYA": "myopic fundus",
    "BRVO": "branch retinal vein occlusion",
    "TSLN": "tessellated fundus",
    "ERM": "epiretinal membrane",
    "LS": "laser scars",
    "MS": "macular scar",
    "CSR": "central serous chorioretinopathy",
    "ODC": "optic disc cupping",
    "CRVO": "central retinal vein occlusion",
    "TV": "tortuous vessels",
    "AH": "asteroid hyalosis",
    "ODP": "optic disc pallor",
    "ODE": "optic disc oedema",
    "ST": "optociliary shunt",
    "AION": "anterior ischaemic optic neuropathy",
    "PT": "parafoveal telangiectasia",
    "RT": "retinal traction",
    "RS": "retinitis",
    "CRS": "chorioretinitis",
    "EDN": "exudation",
    "RPEC": "changes of the retinal pigment epithelium",
    "MHL": "macular hole",
    "RP": "retinitis pigmentosa",
    "CWS": "cotton-wool spots",
    "CB": "coloboma",
    "ODPM": "optic disc pit maculopathy",
    "PRH": "preretinal haemorrhage",
    "MNF": "myelinated nerve fibres",
    "HR": "haemorrhagic retinopathy",
    "CRAO": "central retinal artery occlusion",
    "TD": "tilted disc",
    "CME": "cystoid macular oedema",
    "PTCR": "post-traumatic choroidal rupture",
    "CF": "choroidal folds",
    "VH": "vitreous haemorrhage",
    "MCA": "macroaneurysm",
    "VS": "vasculitis",
    "BRAO": "branch retinal artery occlusion",
    "PLQ": "plaque",
    "HPED": "haemorrhagic pigment epithelial detachment",
    "CL": "collateral vessels",
}


def _rfmid(cell: Cell, columns: tuple[str, ...]) -> list[Entry]:
    names = [name for code, name in RFMID_FINDINGS.items() if cell_text(cell(code)) == "1"]
    label = cell_text(cell(*columns))
    texts = names or ([NORMAL] if label == "0" else [])
    return [Entry(image=cell_text(cell("ID")), label=label, texts=tuple(class_name(text) for text in texts))]


RFMID = Dataset(
    name="rfmid",
    title="RFMiD",
    role="substitute",
    kind="unpaired",
    task="disease or none; 45 findings as texts",
    source="https://ieee-dataport.org/open-access/retinal-fundus-multi-disease-image-dataset-rfmid",
    licence="CC BY 4.0 (check at the source)",
    terms="attribution",
    citation="Pachade et al., 2021, Data 6(2)",
    count=3200,
    parts=tuple(
        Part(
            images=(f"1. Original Images/{letter}. {folder} Set", f"1. Original Images/{letter}. {folder}"),
            example="<n>.png",
            split=split,
            sheets=(
                Sheet(
                    paths=(
                        f"2. Groundtruths/{letter}. RFMiD_{folder}_Labels.csv",
                        f"2. Groundtruths/{letter}. *.csv",
                    ),
                    entries=_rfmid,
                ),
            ),
        )
        for letter, folder, split in (("a", "Training", "train"), ("b", "Validation", "val"), ("c", "Testing", "test"))
    ),
    targets={"risk": Target(classes={"0": NORMAL, "1": "abnormal fundus"}, columns=("Disease_Risk",))},
    traps=("names start again in every split",),
)

DATASETS = (BRSET, RFMID)
