"""From a protocol's config to the function that carries it out."""

import numpy as np
from jaxtyping import Int

from maskedclip_composer.evaluation.protocols.base import Fit, Problem
from maskedclip_composer.evaluation.protocols.config import ProtocolConfig
from maskedclip_composer.evaluation.protocols.finetune import finetune
from maskedclip_composer.evaluation.protocols.knn import knn
from maskedclip_composer.evaluation.protocols.linear_probe import linear_probe
from maskedclip_composer.evaluation.protocols.zero_shot import zero_shot


def fit(protocol: ProtocolConfig, problem: Problem, rows: Int[np.ndarray, " chosen"], seed: int) -> Fit:
    """Train on `rows`, choose on validation, and score the test split, once."""
    if protocol.linear_probe is not None:
        return linear_probe(protocol.linear_probe, problem, rows)
    if protocol.knn is not None:
        return knn(protocol.knn, problem, rows)
    if protocol.zero_shot is not None:
        return zero_shot(protocol.zero_shot, problem)
    assert protocol.finetune is not None
    return finetune(protocol.finetune, problem, rows, seed)


def is_random(protocol: ProtocolConfig) -> bool:
    """Tell whether a second seed changes anything even with all labels."""
    return protocol.finetune is not None
