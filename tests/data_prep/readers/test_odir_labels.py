import pytest

from data_prep.readers.odir_labels import odir_labels


@pytest.mark.parametrize(
    ("keywords", "labels"),
    [
        ("normal fundus", "N"),
        ("mild nonproliferative retinopathy", "D"),
        ("moderate non proliferative retinopathy", "D"),
        ("severe proliferative diabetic retinopathy", "D"),
        ("suspected diabetic retinopathy", "D"),
        ("suspected glaucoma", "G"),
        ("wet age-related macular degeneration", "A"),
        ("myopia retinopathy", "M"),
        ("myopic maculopathy", "M"),
        # Words of the diseases in other findings.
        ("hypertensive retinopathy", "H"),
        ("old chorioretinopathy", "O"),
        ("macular hole", "O"),
        ("maculopathy", "O"),
        ("tessellated fundus", "O"),
        ("refractive media opacity", "O"),
        ("epiretinal membrane, drusen", "O"),
        # The order of the sheet, whatever that of the keywords; normal is only who has nothing else.
        ("laser spot, hypertensive retinopathy, cataract, mild nonproliferative retinopathy", "DCHO"),
        ("normal fundus, drusen", "O"),
        ("", ""),
    ],
)
def test_codes_of_keywords(keywords, labels):
    assert odir_labels(filter(None, keywords.split(", "))) == tuple(labels)
