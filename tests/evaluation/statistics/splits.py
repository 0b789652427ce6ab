"""Test splits drawn from distributions, so that what is estimated is known."""

import numpy as np


def one_label(rng: np.random.Generator, images: int, classes: int) -> np.ndarray:
    """One-hot labels of random, unequal frequency; every class occurs at least twice."""
    frequency = np.arange(1, classes + 1) / (classes * (classes + 1) / 2)
    fixed = np.repeat(np.arange(classes), 2)
    targets = np.concatenate([fixed, rng.choice(classes, size=images - len(fixed), p=frequency)])
    return np.eye(classes, dtype=bool)[targets]


def scores(rng: np.random.Generator, one_hot: np.ndarray, signal: float, decimals: int = 8) -> np.ndarray:
    """Softmax of noise plus `signal` for the true class."""
    exponentials = np.exp(rng.normal(size=one_hot.shape) + signal * one_hot)
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).round(decimals)


def related(rng: np.random.Generator, one_hot: np.ndarray, seeds: tuple[int, int], signal: float = 1) -> list:
    """Scores of two models of equal quality that find the same images hard, [seeds images classes] each."""
    hard = rng.normal(size=one_hot.shape)
    logits = [0.7 * hard + 0.7 * rng.normal(size=(n, *one_hot.shape)) + signal * one_hot for n in seeds]
    exponentials = [np.exp(values) for values in logits]
    return [values / values.sum(axis=-1, keepdims=True) for values in exponentials]
