"""Mistakes of public code for retinal images in evaluation: each test shows one, and that it is not ours.

`docs/evaluation.md` lists them with where they were seen. Those of metrics are in `test_peer_mistakes_metrics.py`,
those of splits in `test_data.py` and `tests/data_prep`, those of loading weights in `encoders/`, and a test set that is
scored in every epoch, a best checkpoint that is never loaded and smoothing that is never used in
`protocols/test_finetune.py`.
"""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from maskedclip_composer.evaluation.encoders.fingerprint import fingerprint
from maskedclip_composer.evaluation.features import extract
from maskedclip_composer.evaluation.protocols import finetune as module
from maskedclip_composer.evaluation.protocols.config import FinetuneConfig, KnnConfig, LinearProbeConfig
from maskedclip_composer.evaluation.protocols.finetune import finetune
from maskedclip_composer.evaluation.protocols.knn import knn
from maskedclip_composer.evaluation.protocols.linear_probe import linear_probe
from tests.evaluation.problems import feature_problem, whole_problem
from tests.evaluation.protocols.test_linear_probe import drawn

ROOT = Path(__file__).parents[2]
ROWS = np.arange(24)
START = FinetuneConfig(epochs=2, warmup_epochs=1, batch_size=8, lr=1e-2, min_lr=0.0)

# Tested elsewhere: a CPU has one precision, and the choice of the epoch is not that of the training.
NOT_HERE = {"precision", "select_by"}
OTHER = {
    "epochs": 3,
    "warmup_epochs": 0,
    "batch_size": 12,
    "lr": 1e-3,
    "min_lr": 5e-3,
    "layer_decay": 0.9,
    "weight_decay": 0.5,
    "drop_path": 0.5,
    "label_smoothing": 0.4,
    "rand_augment": "",
    "random_erasing": 0.9,
    "min_crop": 0.9,
}


@pytest.fixture(scope="module")
def problem(mds, tmp_path_factory):
    return whole_problem(mds, tmp_path_factory.mktemp("aside"))


class LastWeights(module.BestWeights):
    """The last epoch, so that a setting cannot hide behind an early best one."""

    def eval_end(self, state, logger):
        self._best = -1.0
        super().eval_end(state, logger)


@pytest.fixture(scope="module")
def reference(problem):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BestWeights", LastWeights)
        return finetune(START, problem, ROWS, 0).probabilities


@pytest.mark.parametrize("key", sorted({field.name for field in dataclasses.fields(FinetuneConfig)} - NOT_HERE))
def test_no_setting_of_fine_tuning_is_read_and_ignored(problem, reference, monkeypatch, key):
    """RETFound's --smoothing, --norm, --enhance, --resplit and --datasets_seed; FLAIR's --project_features."""
    monkeypatch.setattr(module, "BestWeights", LastWeights)
    other = finetune(dataclasses.replace(START, **{key: OTHER[key]}), problem, ROWS, 0).probabilities
    assert not np.allclose(other, reference, atol=1e-7)


@pytest.mark.parametrize(
    ("key", "value"), [("c_grid", [1e-3]), ("standardise", False), ("balanced", True), ("max_iterations", 2)]
)
def test_no_setting_of_the_probe_is_read_and_ignored(key, value):
    start = LinearProbeConfig(c_grid=[1.0])
    parts = drawn(11)
    fits = [
        linear_probe(config, feature_problem(parts), np.arange(45))
        for config in (start, dataclasses.replace(start, **{key: value}))
    ]
    assert not np.allclose(fits[0].probabilities, fits[1].probabilities, atol=1e-6)


@pytest.mark.parametrize(("key", "value"), [("k_grid", [3]), ("temperature", 0.5)])
def test_no_setting_of_the_neighbours_is_read_and_ignored(key, value):
    start = KnnConfig(k_grid=[20])
    problem = feature_problem(drawn(12))
    other = knn(dataclasses.replace(start, **{key: value}), problem, np.arange(60))
    assert not np.allclose(knn(start, problem, np.arange(60)).probabilities, other.probabilities, atol=1e-6)


def test_fine_tuning_trains_every_weight_and_the_probe_none(problem, monkeypatch):
    """FLAIR's methods that freeze a part never freeze: they compare the kind of the network with another spelling."""
    kept = []
    monkeypatch.setattr(module, "BestWeights", lambda network: kept.append(network) or LastWeights(network))
    before = problem.encoder.classifier(3, 0.0).state_dict()
    finetune(START, problem, ROWS, 0)
    same = [name for name, value in kept[0].state_dict().items() if name in before and torch.equal(value, before[name])]
    assert not same
    known = fingerprint(problem.encoder)
    linear_probe(LinearProbeConfig(c_grid=[1.0]), problem, ROWS)
    assert fingerprint(problem.encoder) == known


def test_features_are_those_of_evaluation_mode_whatever_was_done_before(problem):
    """RETFound's shipped notebook normalises every image by its own mean and deviation, unlike its fine-tuning."""
    options = {"batch_size": 8, "workers": 0, "device": torch.device("cpu")}
    first = extract(problem.encoder, problem.photographs["val"], **options)
    problem.encoder.module.train()
    np.testing.assert_array_equal(extract(problem.encoder, problem.photographs["val"], **options), first)
    # An image's feature does not depend on which images come with it.
    alone = extract(problem.encoder, problem.photographs["val"], **options | {"batch_size": 1})
    np.testing.assert_allclose(alone, first, atol=1e-4)


def test_the_test_split_changes_nothing_that_is_chosen(problem, monkeypatch):
    """RET-CLIP, RetiZero and EyeCLIP look at the test set while they train."""
    first = finetune(START, problem, ROWS, 0)
    shuffled = problem.data.test.one_hot[np.random.default_rng(0).permutation(len(problem.data.test))]
    monkeypatch.setattr(problem.photographs["test"], "split", dataclasses.replace(problem.data.test, one_hot=shuffled))
    other = dataclasses.replace(problem, data=dataclasses.replace(problem.data, test=problem.photographs["test"].split))
    again = finetune(START, other, ROWS, 0)
    assert again.details == first.details
    np.testing.assert_array_equal(again.probabilities, first.probabilities)


@pytest.mark.slow
def test_ranks_train_the_same_weights(mds, tmp_path):
    """KeepFIT trains through `model.module`, past DDP: each rank then learns from its own images alone."""
    code = f"""
import hashlib, sys
from pathlib import Path
import numpy as np
from composer.utils import dist, get_device
dist.initialize_dist(get_device("cpu"), timeout=60)
from maskedclip_composer.evaluation.protocols import finetune as module
from tests.evaluation.problems import whole_problem
from tests.evaluation.test_peer_mistakes import LastWeights, ROWS, START
kept = []
module.BestWeights = lambda network: kept.append(network) or LastWeights(network)
problem = whole_problem(Path({str(mds)!r}), Path({str(tmp_path)!r}) / str(dist.get_global_rank()))
module.finetune(START, problem, ROWS, 0)
digest = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in kept[0].parameters())).hexdigest()
digests = dist.all_gather_object(digest)
if dist.get_global_rank() == 0:
    print("same" if len(set(digests)) == 1 else "different", len(digests))
"""
    (tmp_path / "ranks.py").write_text(code)
    done = subprocess.run(
        [str(Path(sys.executable).with_name("composer")), "-n", "2", str(tmp_path / "ranks.py")],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert "same 2" in done.stdout, done.stdout[-500:] + done.stderr[-3000:]


def test_documented_commands_name_files_that_exist():
    """EyeCLIP's README calls `main_finetune_ophthal.py`; the file is `main_finetune_opthal.py`."""
    texts = [ROOT / "README.md", ROOT / "Makefile", *(ROOT / "docs").rglob("*.md"), *(ROOT / "yamls").rglob("*.yaml")]
    named = {
        (text.name, match)
        for text in texts
        if text.name != "reliability_sources.md"  # it names other projects' files
        for match in re.findall(
            r"(?<![\w/.{}<-])((?:yamls|benchmarks|docs)/[\w/.-]+\.(?:yaml|py|sh|md))", text.read_text()
        )
    }
    assert named
    # NAME stands for any, and the worked example of docs/objectives.md writes its own.
    named = {(text, file) for text, file in named if "NAME" not in file and not file.endswith("/siglip.yaml")}
    assert not [(text, file) for text, file in named if not (ROOT / file).is_file()]
    protocols = {
        name
        for text in texts
        for found in re.findall(r"protocols=\[([\w,]+)\]", text.read_text())
        for name in found.split(",")
    }
    assert protocols
    assert all((ROOT / "yamls" / "protocols" / f"{name}.yaml").is_file() for name in protocols)
