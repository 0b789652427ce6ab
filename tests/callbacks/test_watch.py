"""The watch over health: what it warns of, once, and what it does not."""

import logging
import math
from types import SimpleNamespace

import pytest
import torch

from maskedclip_composer.callbacks.config import WatchConfig
from maskedclip_composer.callbacks.diagnostics import Diagnostics
from maskedclip_composer.callbacks.watch import Watch
from maskedclip_composer.errors import UserError
from tests import tiny
from tests.composer_run import fit


class Seen:
    """A watch, and what it told: log lines, tags and counts."""

    def __init__(self, **config):
        self.tags, self.counts = [], []
        self.watch = Watch(WatchConfig(**config), SimpleNamespace(set_tags=self.tags.append))
        self.watch._limits = {"lg_clip": 100.0}
        self.logger = SimpleNamespace(log_metrics=lambda metrics: self.counts.append(metrics["health/warnings"]))
        self.step = 0

    def feed(self, name: str, *values: float, **others: float) -> None:
        for value in values:
            self.step += 10
            self.watch.judge(
                {name: value} | {f"lg_clip/{key}": other for key, other in others.items()}, self.step, self.logger
            )


@pytest.mark.parametrize(
    ("name", "well", "bad", "others", "tag"),
    [
        ("lg_clip/logit_scale", 20.0, 100.0, {}, "runaway: lg_clip/logit_scale at "),
        ("mfd/teacher_patch_variance", 0.3, 0.0001, {}, "collapse: mfd/teacher_patch_variance at "),
        ("lg_clip/image_variance", 0.3, 0.0001, {}, "collapse: lg_clip/image_variance at "),
        ("mfd/teacher_effective_rank", 4.0, 1.001, {}, "collapse: mfd/teacher_effective_rank at "),
        ("lg_clip/retrieval_at_1", 0.9, 0.4, {"retrieval_chance": 0.4}, "collapse: lg_clip/retrieval_at_1 at "),
        (
            "lg_clip/text_retrieval_at_1",
            0.9,
            0.4,
            {"retrieval_chance": 0.4},
            "collapse: lg_clip/text_retrieval_at_1 at ",
        ),
    ],
)
def test_a_crossing_is_told_once_and_so_is_the_recovery(name, well, bad, others, tag, caplog):
    seen = Seen(grace=0)
    seen.feed(name, *[well] * 5, *[bad] * 40, **others)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert f"{name} is at" in caplog.text
    seen.feed(name, *[well] * 40, **others)
    assert len(caplog.records) == 2
    assert f"{name} is well again" in caplog.text
    assert seen.tags[0] == seen.tags[-1] == {"health": "ok"}
    assert len(seen.tags) == 3
    assert seen.tags[1]["health"].startswith(tag)
    assert seen.counts[4] == seen.counts[-1] == 0
    assert max(seen.counts) == 1


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("mfd/teacher_patch_variance", [0.3] * 20 + [0.01] * 50),  # a thirtieth of the best
        ("mfd/teacher_effective_rank", [1.3] * 20 + [1.0] * 50),  # as good as collapsed from the start
        ("lg_clip/retrieval_at_1", [0.15] * 20 + [0.0] * 50),
        ("lg_clip/retrieval_at_1", [1.0, 1.0, 0.0, 1.0] * 20),  # a bad batch now and then
        ("mim/loss", [1.0] * 20 + [0.0] * 50),
        ("lg_clip/logit_scale", [14.0] * 20 + [95.0] * 50),
        ("lg_clip/image_variance", [0.3] * 20 + [math.nan] * 50),
    ],
)
def test_no_wolf_is_cried(name, values, caplog):
    Seen(grace=0).feed(name, *values)
    assert not caplog.records


def test_a_number_that_hovers_about_its_threshold_is_told_once(caplog):
    seen = Seen(grace=0)
    seen.feed("lg_clip/image_variance", *[0.4] * 20, *[0.0] * 20, *[0.0, 0.02] * 20)  # a mean of 0.01, of 0.008 allowed
    assert len(caplog.records) == 1


def test_nothing_is_told_within_the_grace_period_but_the_best_is_known(caplog):
    seen = Seen(grace=250)
    seen.feed("lg_clip/image_variance", *[0.4] * 5, *[0.0] * 20)
    assert not caplog.records
    seen.feed("lg_clip/image_variance", 0.0)
    assert caplog.text.count("is at") == 1
    assert "Step 260:" in caplog.text


@pytest.mark.parametrize(
    ("key", "name"),
    [("logit_scale", "logit_scale"), ("variance", "image_variance"), ("effective_rank", "image_effective_rank")],
)
def test_null_does_not_watch(key, name, caplog):
    seen = Seen(grace=0, **{key: None})
    seen.feed(f"lg_clip/{name}", *[99.0] * 20, *[0.0 if key != "logit_scale" else 100.0] * 50)
    assert not caplog.records


def test_a_resumed_watch_knows_what_was_and_does_not_tell_it_again(caplog):
    first, second = Seen(grace=0), Seen(grace=0)
    first.feed("lg_clip/image_variance", *[0.4] * 5, *[0.0] * 30)
    assert len(caplog.records) == 1
    second.watch.load_state_dict(first.watch.state_dict())
    second.feed("lg_clip/image_variance", *[0.0] * 5)
    assert len(caplog.records) == 1
    assert second.counts == [1] * 5
    second.feed("lg_clip/image_variance", *[0.4] * 20)
    assert len(caplog.records) == 2


@pytest.mark.parametrize("setting", [{"grace": -1}, {"logit_scale": 0.0}, {"variance": 1.5}, {"retrieval": math.nan}])
def test_a_wrong_threshold_is_named(setting):
    (key,) = setting
    with pytest.raises(UserError, match=rf"watch\.{key}=.*\nUse"):
        WatchConfig(**setting)


NUMBERS = {
    "mae": set(),
    "clip": {"lg_clip/image_variance", "lg_clip/image_effective_rank", "lg_clip/text_retrieval_at_1"},
    "maskedclip": {"lg_clip/image_variance", "mfd/teacher_effective_rank", "mfd/teacher_patch_variance"},
    "mmclip": {"lg_clip/image_variance"},
    "mlip": {"integrity_clip/image_effective_rank", "patch_sentence/text_retrieval_at_1"},
    "dinov2": {"dinov2/class_token_variance", "dinov2/class_token_effective_rank"},
}


@pytest.mark.parametrize("recipe", NUMBERS)
def test_every_recipe_is_watched_by_what_it_has(recipe):
    watch = Watch(WatchConfig())
    _, _, metrics = fit(tiny.net(recipe), [tiny.batch(4, 4)], callbacks=[watch, Diagnostics(1, watch)])
    assert {f"diagnostics/{name}" for name in NUMBERS[recipe]} <= metrics.data.keys()
    assert recipe in ("maskedclip", "dinov2") or not [name for name in metrics.data if "teacher" in name]
    assert float(metrics.data["health/warnings"][0][1]) == 0
    assert all(math.isfinite(float(metrics.data[f"diagnostics/{name}"][0][1])) for name in NUMBERS[recipe])


def test_a_logit_scale_at_its_clamp_is_told_in_training(caplog):
    net = tiny.net("clip")
    with torch.no_grad():
        net.objectives["lg_clip"].log_logit_scale.fill_(math.log(100))
    watch = Watch(WatchConfig(grace=0))
    fit(net, [tiny.batch(4, 0)], callbacks=[watch, Diagnostics(1, watch)])
    assert "Step 1: lg_clip/logit_scale is at 100.0% of its limit" in caplog.text
