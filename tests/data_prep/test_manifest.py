import pytest

from data_prep.manifest import Source, read_rows
from maskedclip_composer.errors import UserError
from tests.data_prep.drawing import write_csv


@pytest.fixture
def read(tmp_path):
    def read(rows, **options):
        (tmp_path / "images").mkdir(exist_ok=True)
        table = write_csv(tmp_path / "t.csv", rows)
        kind, found = read_rows(Source(table=table, images=(tmp_path / "images").resolve(), **options))
        return kind, list(found)

    return read


def test_kind_follows_the_columns(read):
    assert read([{"image": "a", "text": "x", "label": "1"}])[0] == "paired"
    assert read([{"image": "a", "label": "1"}])[0] == "labelled"
    assert read([{"image": "a", "label": "1"}], template="A {label}")[0] == "paired"
    assert read([{"image": "a", "patient": "1"}])[0] == "unpaired"
    kind, rows = read([{"image": "a", "text": "x", "label": "1"}], kind="unpaired")
    assert (kind, rows[0].texts) == ("unpaired", ())


def test_texts_and_their_categories(read):
    def pair(row, **options):
        found = read([{"image": "a"} | row], **options)[1][0]
        return list(zip(found.texts, found.labels, strict=True))

    assert pair({"text": "x|y"}) == [("x|y", "")]
    assert pair({"text": "x|y"}, separator="|") == [("x", ""), ("y", "")]
    assert pair({"text": "x|y", "label": "1"}, separator="|") == [("x", "1"), ("y", "1")]
    assert pair({"text": "x|y", "label": "1|2"}, separator="|") == [("x", "1"), ("y", "2")]
    assert pair({"text": "Drusen\uff0cNormal"}, separator="\uff0c", label_from_text=True) == [
        ("Drusen", "drusen"),
        ("Normal", "normal fundus"),
    ]
    assert pair({"label": "drusen|cataract"}, separator="|", template="A photograph of {label}.") == [
        ("A photograph of drusen.", "drusen"),
        ("A photograph of cataract.", "cataract"),
    ]


def test_several_labels_have_to_be_asked_for(read):
    def labels(*cells, **options):
        kind, found = read([{"image": f"{n}", "label": cell} for n, cell in enumerate(cells)], **options)
        return kind, [row.labels for row in found]

    several = {"kind": "multilabel", "separator": "|"}
    assert labels("O|D|O", "D", **several) == ("multilabel", [("D", "O"), ("D",)])
    assert labels("D;O", "", kind="multilabel", separator=";") == ("multilabel", [("D", "O"), ()])
    assert labels("D", "O")[0] == labels("D", "O", separator="|")[0] == "labelled"
    with pytest.raises(UserError, match=r"1 row \(2\) have '\|' in a label; give --kind multilabel --separator '\|'"):
        labels("D|O", "D")
    with pytest.raises(UserError, match=r"have '\|' in a label; give --kind multilabel --separator"):
        labels("D|O", kind="multilabel")
    with pytest.raises(
        UserError, match=r"1 row \(3\) have no label, though the set has one for normal; fill the column"
    ):
        labels("normal fundus", "", **several)


def test_labels_as_texts_are_worded_later(read):
    row = read([{"image": "a", "label": "glaucoma"}], text_from_label=True)[1][0]
    assert (row.texts, row.labels, row.kinds) == (("glaucoma",), ("glaucoma",), ("category",))
    assert read([{"image": "a", "text": "x"}])[1][0].kinds == ("sentence",)
    kinds = {"image": "a", "text": "x|y", "text_kind": "finding|sentence"}
    assert read([kinds], separator="|")[1][0].kinds == ("finding", "sentence")


def test_other_columns(read):
    rows = [{"Image": "x\\b.jpg", "eye": "OD", "patient": "7", "split": "val", "dataset": "D"}]
    row = read(rows)[1][0]
    assert (row.image, row.eye, row.patient, row.split, row.dataset) == ("x/b.jpg", "right", "7", "val", "D")
    assert read([{"image": "a"}], dataset="E")[1][0].dataset == "E"


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ({"filename": "a"}, {}, "no column image, it has filename; rename 'filename'"),
        ({"imagge": "a"}, {}, "rename 'imagge'"),
        ({"image": "", "text": "x"}, {}, r"1 row \(2\) name no image"),
        ({"image": "a", "text": " | "}, {"separator": "|"}, r"1 row \(2\) have no text"),
        ({"image": "a", "label": ""}, {}, r"\(2\) have not exactly one label"),
        ({"image": "a"}, {"kind": "paired"}, "need a column text.*--template"),
        ({"image": "a"}, {"kind": "labelled"}, "need a column label"),
        ({"image": "a"}, {"kind": "multilabel"}, "multilabel rows need a column label"),
        ({"image": "a", "label": "1", "text": "x"}, {"kind": "multilabel", "label_from_text": True}, "is for paired"),
        ({"image": "a"}, {"template": "A {label}"}, "--template needs a column label"),
        ({"image": "a", "text": "x"}, {"template": "A {label}"}, "has a column text already"),
        ({"image": "a"}, {"label_from_text": True}, "--label-from-text is for paired rows"),
        ({"image": "a", "text": "x|y", "label": "1|2|3"}, {"separator": "|"}, "2 texts but 3 labels"),
        ({"image": "a", "text": "x", "text_kind": "poem"}, {}, "row 2 has text_kind 'poem'; write category, finding"),
        ({"image": "a", "text": "x", "text_kind": "finding|finding"}, {"separator": "|"}, "1 texts but 2 text kinds"),
        ({"image": "a", "eye": "middle"}, {}, "row 2 has eye 'middle'"),
        ({"image": "a", "split": "../b"}, {}, "cannot name a folder"),
        ({"image": "../a"}, {}, "row 2: image '../a' lies outside"),
        ({"image": "/etc/passwd"}, {}, "lies outside"),
    ],
)
def test_bad_tables_are_refused_with_a_remedy(read, row, options, message):
    with pytest.raises(UserError, match=message):
        read([row], **options)


def test_links_may_not_lead_out_of_the_root(read, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "secret.jpg").write_bytes(b"x")
    (tmp_path / "images" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (tmp_path / "images" / "folder").symlink_to(tmp_path)
    for image in ("link.jpg", "folder/secret.jpg"):
        with pytest.raises(UserError, match="lies outside the image root"):
            read([{"image": image}])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"separator": ""}, "--separator is empty"),
        ({"template": "A photograph"}, r"has no \{label\}"),
        ({"template": "{label}", "label_from_text": True}, "give one of them"),
        ({"template": "{label}", "text_from_label": True}, "give one of them"),
    ],
)
def test_contradictory_options(read, options, message):
    with pytest.raises(UserError, match=message):
        read([{"image": "a"}], **options)


def test_a_bare_folder_lists_photographs_only(tmp_path):
    root = tmp_path.resolve()
    for name in (
        "b/2.JPG",
        "a.png",
        "b/Thumbs.db",
        "b/._2.JPG",
        ".DS_Store",
        "desktop.ini",
        "notes.txt",
        ".cache/c.jpg",
    ):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"")
    kind, rows = read_rows(Source(table=None, images=root))
    assert kind == "unpaired"
    assert [(row.image, row.dataset) for row in rows] == [("a.png", root.name), ("b/2.JPG", "b")]
    with pytest.raises(UserError, match="--kind paired needs a table"):
        list(read_rows(Source(table=None, images=root, kind="paired"))[1])
