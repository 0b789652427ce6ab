"""Linear probe: logistic regression on the mean patch token of the frozen encoder."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from maskedclip_composer.evaluation.config import ProbeConfig
from maskedclip_composer.evaluation.data import LabelledSplit
from maskedclip_composer.evaluation.loading import build_loader, eval_dataset
from maskedclip_composer.evaluation.metrics import classification_metrics
from maskedclip_composer.evaluation.ranks import gather_objects, rank, world_size
from maskedclip_composer.export.encoder import LoadedEncoder


@dataclass(frozen=True, kw_only=True)
class ProbeFit:
    """The chosen regression.

    Attributes:
        model: Standardisation and regression, fitted on the training rows alone.
        c: Its inverse regularisation strength.
        val_roc: Macro ROC on the validation split by strength.
        converged: Whether the solver reached its tolerance for the chosen strength.
    """

    model: Pipeline
    c: float
    val_roc: dict[float, float]
    converged: bool


@torch.no_grad()
def extract_features(
    encoder: LoadedEncoder, split: LabelledSplit, *, batch_size: int, workers: int, device: torch.device
) -> Float[np.ndarray, "images dim"]:
    """Return the mean patch token after the final norm, in float32, of every photograph in the split's order.

    The class token is left out of the mean. Ranks share the work; each gets all rows.
    """
    dataset = eval_dataset(split, encoder.image_size)
    loader = build_loader(dataset, batch_size, workers, sampler=range(rank(), len(dataset), world_size()))
    vit = encoder.vit.to(device).eval()
    mean = torch.tensor(encoder.mean, device=device).view(-1, 1, 1)
    std = torch.tensor(encoder.std, device=device).view(-1, 1, 1)
    own = []
    for batch in tqdm(loader, desc=f"features {split.name}", disable=rank() > 0, leave=False):
        images = (batch["image"].to(device).float() / 255 - mean) / std
        tokens = vit.forward_features(images)[:, vit.num_prefix_tokens :]
        own.append(tokens.mean(dim=1).cpu().numpy())
    features = np.empty((len(dataset), vit.embed_dim), dtype=np.float32)
    parts = gather_objects(np.concatenate(own) if own else features[:0])
    for index, part in enumerate(parts):
        features[index :: len(parts)] = part
    return features


def fit_probe(
    config: ProbeConfig,
    train: tuple[Float[np.ndarray, "images dim"], Int[np.ndarray, " images"]],
    val: tuple[Float[np.ndarray, "images dim"], Int[np.ndarray, " images"]],
) -> ProbeFit:
    """Fit one regression per strength on `train` and keep the one with the best macro ROC on `val`.

    Args:
        config: The strengths and the solver's bound.
        train: Features and classes; every class must occur.
        val: Features and classes; used for the choice alone.
    """
    candidates: dict[float, tuple[Pipeline, bool]] = {}
    val_roc: dict[float, float] = {}
    for c in config.c_grid:
        regression = LogisticRegression(C=c, max_iter=config.max_iterations)
        model = make_pipeline(StandardScaler(), regression)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # reported for the chosen strength alone
            model.fit(*train)
        candidates[c] = (model, bool(np.max(regression.n_iter_) < config.max_iterations))
        val_roc[c] = classification_metrics(model.predict_proba(val[0]), val[1])["roc"]
    best = max(val_roc, key=lambda c: val_roc[c])  # the first, that is the listed order, among equals
    model, converged = candidates[best]
    return ProbeFit(model=model, c=best, val_roc=val_roc, converged=converged)
