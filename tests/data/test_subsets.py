import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from maskedclip_composer.data.subsets import FRACTIONS, below_common_folder, smallest_fractions, subset

# (class, number of the patient or None) of each image
images = st.lists(st.tuples(st.integers(0, 4), st.none() | st.integers(0, 9)), min_size=1, max_size=60)
seeds = st.integers(0, 5)


def unpack(drawn):
    targets = np.array([label for label, _ in drawn])
    names = [f"folder/{index}.jpg" for index in range(len(drawn))]
    return targets, names, ["" if patient is None else str(patient) for _, patient in drawn]


@given(images, seeds)
def test_fractions_are_nested_and_hold_every_class_and_whole_patients(drawn, seed):
    targets, names, patients = unpack(drawn)
    last = set()
    for fraction in FRACTIONS:
        chosen = set(subset(targets, fraction, seed, names=names, patients=patients))
        assert last <= chosen
        assert {targets[index] for index in chosen} == set(targets)
        taken = {patients[index] for index in chosen} - {""}
        assert chosen >= {index for index, patient in enumerate(patients) if patient in taken}
        last = chosen
    assert len(last) == len(targets)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=300), seeds, st.sampled_from(FRACTIONS))
def test_shares_without_patients_are_rounded(labels, seed, fraction):
    targets = np.array(labels)
    chosen = subset(targets, fraction, seed, names=[f"{index}" for index in range(len(labels))])
    for label, number in zip(*np.unique(targets, return_counts=True), strict=True):
        assert np.sum(targets[chosen] == label) == max(1, int(fraction * number + 0.5))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6)), min_size=1, max_size=40), seeds)
def test_shares_of_patients_of_one_class_are_as_near_as_whole_patients_can_be(drawn, seed):
    targets = np.concatenate([[label] * size for label, size in drawn])
    patients = [str(number) for number, (_, size) in enumerate(drawn) for _ in range(size)]
    names = [str(index) for index in range(len(targets))]
    for fraction in FRACTIONS:
        chosen = subset(targets, fraction, seed, names=names, patients=patients)
        for label in np.unique(targets):
            largest = max(size for other, size in drawn if other == label)
            wanted = max(1, int(fraction * np.sum(targets == label) + 0.5))
            found = np.sum(targets[chosen] == label)
            # The first patient is taken whatever its size.
            assert abs(found - wanted) <= largest / 2 or (wanted < found <= largest)


@given(images, seeds, st.randoms(use_true_random=False))
def test_the_order_of_the_images_does_not_matter(drawn, seed, random):
    targets, names, patients = unpack(drawn)
    order = list(range(len(drawn)))
    random.shuffle(order)
    moved = smallest_fractions(
        targets[order], seed, names=[names[i] for i in order], patients=[patients[i] for i in order]
    )
    assert (moved == smallest_fractions(targets, seed, names=names, patients=patients)[order]).all()


def test_smallest_fractions_are_those_of_the_subsets():
    targets = np.repeat([0, 1, 2], [200, 40, 3])
    names = [f"{index}.jpg" for index in range(243)]
    smallest = smallest_fractions(targets, 5, names=names)
    for fraction in FRACTIONS:
        chosen = subset(targets, fraction, 5, names=names)
        assert np.flatnonzero(smallest <= fraction).tolist() == chosen.tolist()
    assert np.bincount(targets[smallest <= 0.1]).tolist() == [20, 4, 1]
    assert np.bincount(targets[smallest <= 0.01]).tolist() == [2, 1, 1]


def test_the_seed_draws_and_a_root_does_not():
    targets = np.repeat([0, 1], [90, 90])
    names = [f"train/{index}.jpg" for index in range(180)]
    drawn = subset(targets, 0.1, 0, names=names)
    assert drawn.tolist() != subset(targets, 0.1, 1, names=names).tolist()
    assert drawn.tolist() == subset(targets, 0.1, 0, names=[f"set/{name}" for name in names]).tolist()


def test_the_draw_stays_the_same_in_later_versions():
    """An index that was published must be drawn again: change this only together with every index."""
    smallest = smallest_fractions(np.zeros(12, dtype=int), 0, names=[str(index) for index in range(12)])
    assert smallest.tolist() == [0.5, 0.25, 0.5, 0.75, 0.25, 1.0, 0.5, 0.75, 0.75, 1.0, 0.01, 1.0]


def test_names_lose_the_folders_that_all_have():
    assert below_common_folder(["a/b/1.jpg", "a/c/1.jpg"]) == ["b/1.jpg", "c/1.jpg"]
    assert below_common_folder(["a/ab/1.jpg", "a/ac/1.jpg"]) == ["ab/1.jpg", "ac/1.jpg"]
    assert below_common_folder(["a/1.jpg", "1.jpg"]) == ["a/1.jpg", "1.jpg"]
    assert below_common_folder(["a/1.jpg"]) == ["1.jpg"]
    assert below_common_folder([]) == []
