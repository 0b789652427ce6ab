import csv

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import maskedclip_composer
from maskedclip_composer.__main__ import main
from maskedclip_composer.data.prompt_files import read_pack
from maskedclip_composer.use.class_texts import class_scores
from tests.model_run import write_run
from tests.use.conftest import GOOD, prepared_at


def zero_shot(photos, out, model, *options) -> int:
    arguments = ["zero-shot", photos, "--out", out, "--model", model, "--batch-size", "3", "--workers", "0", *options]
    return main([str(argument) for argument in arguments])


def read(path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_scores_are_scaled_cosines_with_the_mean_prompt(photographs, run_folder, tmp_path, capsys):
    out, classes = tmp_path / "scores.csv", ["glaucoma", "a b c"]
    templates = ["fundus photograph {}", "{} d"]
    options = ["--classes", *classes, *(word for template in templates for word in ("--template", template))]
    assert zero_shot(photographs, out, run_folder, *options) == 0
    rows = read(out)
    assert list(rows[0]) == ["image", "predicted", *classes, "reason"]
    assert [row["image"] for row in rows] == [*GOOD[:2], "broken.jpg", *GOOD[2:]]
    broken = rows.pop(2)
    assert "cannot be decoded" in broken["reason"]
    assert broken["predicted"] == broken["glaucoma"] == ""
    model, transform, tokenizer = maskedclip_composer.load(run_folder)
    for row, name in zip(rows, GOOD, strict=True):
        image = model.encode_image(transform(photographs / name)[None])[0]
        cosines = []
        for words in classes:
            features = [model.encode_text(**tokenizer(template.replace("{}", words)))[0] for template in templates]
            cosines.append(F.cosine_similarity(torch.stack(features).mean(dim=0), image, dim=0))
        expected = (model.logit_scale * torch.stack(cosines)).softmax(dim=0)
        np.testing.assert_allclose([float(row[words]) for words in classes], expected, atol=2e-6)
        assert row["predicted"] == classes[int(expected.argmax())]
    shown = capsys.readouterr().out
    assert "(2 templates)" in shown
    assert "4 of 5 photographs scored" in shown


def test_several_classes_may_be_true(photographs, run_folder, tmp_path):
    options = ["--classes", "glaucoma", "a b c", "--multilabel"]
    assert zero_shot(photographs / GOOD[2], tmp_path / "several.csv", run_folder, *options) == 0
    assert zero_shot(photographs / GOOD[2], tmp_path / "one.csv", run_folder, *options[:-1]) == 0
    (several,), (one,) = read(tmp_path / "several.csv"), read(tmp_path / "one.csv")
    assert "predicted" not in several
    logits = [np.log(float(several[name]) / (1 - float(several[name]))) for name in options[1:3]]
    softmax = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(softmax, [float(one[name]) for name in options[1:3]], atol=1e-4)


def test_the_classes_of_a_data_set_come_in_the_words_of_the_pack(photographs, run_folder, tmp_path, capsys):
    assert zero_shot(photographs, tmp_path / "a.csv", run_folder, "--dataset", "idrid", "--target", "dme") == 0
    pack = read_pack("retina-en")
    codes = list(pack.class_prompts("idrid", "dme"))
    assert list(read(tmp_path / "a.csv")[0]) == ["image", "predicted", *codes, "reason"]
    assert "1: low risk of macular oedema" in " ".join(capsys.readouterr().out.split())


def test_columns_are_carried_along_and_no_spreadsheet_runs_them(table, photographs, run_folder, tmp_path):
    options = ["--images", photographs, "--classes", "=1+1 a", "b", "--template", "{}"]
    assert zero_shot(table, tmp_path / "a.csv", run_folder, *options) == 0
    rows = read(tmp_path / "a.csv")
    assert list(rows[0]) == ["image", "label", "text", "predicted", "'=1+1 a", "b", "reason"]
    assert {row["text"] for row in rows} == {"'=HYPERLINK(1), ödem"}
    assert {row["predicted"] for row in rows} <= {"'=1+1 a", "b"}


def test_classes_that_are_the_same_tokens_are_named(photographs, run_folder, tmp_path, capsys):
    """Words out of the vocabulary all look alike: any answer would be chance."""
    assert zero_shot(photographs, tmp_path / "a.csv", run_folder, "--classes", "glaucoma", "drusen", "oedema") == 2
    message = capsys.readouterr().err
    assert "'drusen' and 'oedema' are the same tokens" in message
    assert not (tmp_path / "a.csv").exists()


def test_classes_that_are_hardly_told_apart_are_warned_of(photographs, run_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("maskedclip_composer.use.class_scores._ALIKE", -1.0)
    assert zero_shot(photographs, tmp_path / "a.csv", run_folder, "--classes", "glaucoma", "a b") == 0
    assert "hardly tells 'glaucoma' from 'a b'" in capsys.readouterr().out


def test_a_model_without_texts_is_refused(photographs, text_tower, tmp_path, capsys):
    run = write_run(tmp_path, text_tower, "mae")
    assert zero_shot(photographs, tmp_path / "a.csv", run, "--classes", "a", "b") == 2
    assert "trained without texts" in capsys.readouterr().err


def test_where_nothing_can_be_read_the_status_says_so(photographs, run_folder, tmp_path):
    assert zero_shot(photographs / "broken.jpg", tmp_path / "a.csv", run_folder, "--classes", "a", "b") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--classes", "a"], "'a' alone"),
        (["--classes", "a", "a "], "has 'a' twice"),
        (["--classes", "a", " "], "an empty one"),
        (["--classes", "a", "b", "--template", "photograph"], "--template 'photograph' must name"),
        (["--classes", "a", "b", "--template", "{} {x}"], "{x} is not known"),
        (["--classes", "a", "b", "--target", "dme"], "--target dme is for --dataset"),
        (["--dataset", "absent"], "no zero-shot classes of absent"),
        (["--dataset", "idrid", "--target", "absent"], "no zero-shot classes of idrid by absent"),
        (["--classes", "a", "b", "--pack", "absent"], "absent"),
        (["--classes", "a", "b", "--out", "scores.txt"], "written as CSV"),
    ],
)
def test_mistakes_are_said_before_a_model_is_loaded(photographs, tmp_path, capsys, options, message):
    assert zero_shot(photographs, tmp_path / "a.csv", "no such model", *options) == 2
    assert message in capsys.readouterr().err


def test_a_class_may_not_be_called_as_a_column(table, photographs, tmp_path, capsys):
    assert zero_shot(table, tmp_path / "a.csv", "no model", "--images", photographs, "--classes", "label", "b") == 2
    assert "The column label" in capsys.readouterr().err


def test_scores_are_the_formula():
    images = F.normalize(torch.tensor([[3.0, 4.0]]), dim=-1)
    texts = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    odds = np.exp([2 * 0.6, 2 * 0.8])
    np.testing.assert_allclose(class_scores(images, texts, 2.0)[0], odds / odds.sum(), rtol=1e-6)
    np.testing.assert_allclose(class_scores(images, texts, 2.0, multilabel=True)[0], odds / (1 + odds), rtol=1e-6)


def test_shards_that_were_prepared_otherwise_are_told(prepared, run_folder, tmp_path, capsys):
    folder = prepared_at(64, prepared, tmp_path)
    assert zero_shot(folder, tmp_path / "a.csv", run_folder, "--classes", "glaucoma", "a b c") == 0
    assert "was prepared with" in capsys.readouterr().err
    assert zero_shot(prepared, tmp_path / "a.csv", run_folder, "--classes", "glaucoma", "a b c") == 0
    assert "was prepared with" not in capsys.readouterr().err
