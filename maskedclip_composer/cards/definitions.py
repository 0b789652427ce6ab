"""What names in a card mean: objectives, metrics, and by what a protocol chooses."""

from collections.abc import Mapping
from typing import Any

from maskedclip_composer.cards.run_files import RunFiles

OBJECTIVES = {
    "mim": ("L_mim", "masked image modelling: patches that are hidden are reconstructed from those that are not"),
    "lg_clip": ("L_lg_clip", "label-guided contrast of images and texts; with a label for each pair it is CLIP"),
    "mfd": ("L_mfd", "masked feature distillation: what the momentum teacher sees in whole images is predicted"),
    "integrity_clip": ("in the style of MLIP", "contrast of visible patches and texts, weighed by what still shows"),
    "att_mim": ("in the style of MMCLIP", "reconstruction of the patches that the text looks at"),
    "ent_mlm": ("in the style of MMCLIP", "prediction of hidden entities of the text from image and text"),
    "patch_sentence": ("in the style of MLIP", "patches matched with sentences by optimal transport"),
    "dinov2": ("in the style of DINOv2", "self-distillation over several crops of an image"),
}
"""By the config's key: the paper's symbol, or which other system it follows, and what it is."""

METRICS = {
    "roc": "area under the ROC curve of each class against the rest, mean over classes without weights; 50 is chance",
    "prc": "average precision of each class against the rest, mean over classes without weights; chance is the mean "
    "share of the classes",
    "positive_prc": "average precision of class 1, where there are two classes; chance is its share",
    "accuracy": "share of photographs whose most probable class is right; with several labels, of single labels",
    "exact_match": "share of photographs with every label right",
    "balanced_accuracy": "mean recall over classes; with several labels, mean of sensitivity and specificity",
    "f1": "F1 of each class, mean over classes without weights",
    "kappa": "Cohen's kappa without weights",
    "quadratic_kappa": "Cohen's kappa, errors weighed by the squared distance in grades",
    "brier": "mean squared error of the probabilities, from 0 to 2 (several labels: to 1); lower is better",
    "ece": "expected calibration error of the predicted probability in 15 bins; lower is better",
}
"""By the key of `evaluation/metrics.py`, whose docstring has the details."""

HUB_METRICS = {"roc": "roc_auc", "prc": "average_precision", "accuracy": "accuracy", "f1": "f1"}
"""Of these the front matter tells the values, under the hub's names."""

TITLES = {"roc": "ROC", "prc": "PRC", "accuracy": "Accuracy", "f1": "F1"}
"""How those are printed, as in the report."""


_ROWS = {
    frozenset({"mim"}): "MAE",
    frozenset({"lg_clip"}): "CLIP",
    frozenset({"mim", "lg_clip"}): "MAE+CLIP",
    frozenset({"mim", "lg_clip", "mfd"}): "MaskedCLIP",
}


def recipe_name(run: RunFiles) -> str:
    """Return the row of the paper's ablation that a run's objectives are, or what the objectives are."""
    names = frozenset(run.objectives)
    is_flip = run.section("objectives", "lg_clip").get("patches", "whole") != "whole"
    row = None if is_flip else _ROWS.get(names)
    if row is None:
        return f"the objectives {', '.join(sorted(names))}"
    return "MAE+CLIP with the bridge" if row == "MAE+CLIP" and run.section("bridge").get("depth") else row


def selection(protocol: Mapping[str, Any]) -> str:
    """Say by what a protocol, as a suite has recorded it, chooses what is scored on the test split."""
    if settings := protocol.get("linear_probe"):
        grid = ", ".join(f"{value:g}" for value in settings["c_grid"])
        return f"strength of regularisation from {grid}, by macro ROC on validation"
    if settings := protocol.get("knn"):
        return f"number of neighbours from {', '.join(map(str, settings['k_grid']))}, by macro ROC on validation"
    if protocol.get("zero_shot"):
        return "nothing is trained and nothing is chosen"
    if settings := protocol.get("finetune"):
        best = {
            "roc": "macro ROC",
            "mean_of_f1_roc_kappa": "the mean of macro F1, macro ROC and Cohen's kappa",
        }[settings["select_by"]]
        return f"the epoch of {settings['epochs']} that is best in {best} on validation"
    return "not recorded: the suite does not say"
