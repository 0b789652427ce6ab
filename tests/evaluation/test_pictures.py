import numpy as np

from maskedclip_composer.evaluation.cells import Cell, Suite
from maskedclip_composer.evaluation.kinds import Amount
from maskedclip_composer.evaluation.pictures import WORST, worst_mistakes


def test_the_worst_mistake_is_the_one_that_gives_the_truth_least():
    probabilities = np.array([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3], [0.05, 0.15, 0.8], [0.1, 0.1, 0.8]])
    one_hot = np.eye(3, dtype=bool)[[0, 2, 0, 1]]
    # Image 0 is right; 2 gives the truth 0.05, 3 gives it 0.1, 1 gives it 0.3.
    assert worst_mistakes(probabilities, one_hot, "nominal") == [(2, 2), (3, 2), (1, 1)]


def test_of_several_labels_the_one_that_is_farthest_off_counts():
    probabilities = np.array([[0.9, 0.2], [0.4, 0.1], [0.9, 0.95]])
    one_hot = np.array([[True, False], [True, True], [False, False]])
    # Image 0 is right; of image 1 the second label is missed by 0.9, of image 2 the second is said with 0.95.
    assert worst_mistakes(probabilities, one_hot, "multilabel") == [(2, 1), (1, 1)]


def test_right_photographs_never_fill_the_gallery():
    rng = np.random.default_rng(0)
    targets = rng.integers(3, size=60)
    one_hot = np.eye(3, dtype=bool)[targets]
    probabilities = rng.dirichlet(np.ones(3), 60)
    found = worst_mistakes(probabilities, one_hot, "ordinal")
    assert len(found) == WORST
    assert all(said == probabilities[row].argmax() != targets[row] for row, said in found)
    assert worst_mistakes(one_hot.astype(float), one_hot, "ordinal") == []


def test_pictures_are_of_the_first_seed_of_the_largest_amount_of_a_protocol():
    def cells(protocol: str, amounts: list[Amount]) -> list[Cell]:
        return [
            Cell(encoder="a", task="t", protocol=protocol, amount=amount, seed=seed)
            for amount in amounts
            for seed in (0, 1)
        ]

    probe = cells("probe", [Amount(shots=10), Amount(fraction=0.1), Amount(fraction=1.0)])
    planned = [*probe, *cells("knn", [Amount(shots=1), Amount(shots=10)]), *cells("zero", [Amount()])]
    suite = Suite(
        complete=False, baseline="a", planned=planned, notes=[], encoders={}, tasks={}, protocols={}, provenance={}
    )
    pictured = [(cell.protocol, cell.amount.name, cell.seed) for cell in planned if suite.is_pictured(cell)]
    assert pictured == [("probe", "100%", 0), ("knn", "10-shot", 0), ("zero", "zero-shot", 0)]
