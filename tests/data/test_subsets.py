import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from maskedclip_composer.data.subsets import FRACTIONS, below_common_folder, shots, smallest_fractions, subset

# (class, number of the patient or None) of each image
images = st.lists(st.tuples(st.integers(0, 4), st.none() | st.integers(0, 9)), min_size=1, max_size=60)
seeds = st.integers(0, 5)


# (labels, number of the patient or None) of each image
several = st.lists(st.tuples(st.frozensets(st.integers(0, 4)), st.none() | st.integers(0, 9)), min_size=1, max_size=60)


def unpack_several(drawn):
    one_hot = np.array([[label in labels for label in range(5)] for labels, _ in drawn])
    names = [f"folder/{index}.jpg" for index in range(len(drawn))]
    return one_hot, names, ["" if patient is None else str(patient) for _, patient in drawn]


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


@given(images, seeds, st.sampled_from(FRACTIONS))
def test_one_label_each_as_a_matrix_is_the_same_draw(drawn, seed, fraction):
    targets, names, patients = unpack(drawn)
    one_hot = targets[:, None] == np.arange(6)  # one of them absent
    chosen = subset(targets, fraction, seed, names=names, patients=patients)
    assert subset(one_hot, fraction, seed, names=names, patients=patients).tolist() == chosen.tolist()


@given(several, seeds)
def test_fractions_of_several_labels_are_nested_and_hold_every_label_and_whole_patients(drawn, seed):
    one_hot, names, patients = unpack_several(drawn)
    last = set()
    for fraction in FRACTIONS:
        rows = subset(one_hot, fraction, seed, names=names, patients=patients)
        chosen = set(rows.tolist())
        assert last <= chosen
        assert (one_hot[rows].any(axis=0) == one_hot.any(axis=0)).all()
        assert (~one_hot[rows].any(axis=1)).any() == (~one_hot.any(axis=1)).any()
        taken = {patients[index] for index in chosen} - {""}
        assert chosen >= {index for index, patient in enumerate(patients) if patient in taken}
        last = chosen
    assert len(last) == len(drawn)


@given(st.lists(st.frozensets(st.integers(0, 4)), min_size=1, max_size=200), seeds, st.sampled_from(FRACTIONS))
def test_every_label_gets_its_share(labels, seed, fraction):
    one_hot = np.array([[label in of_image for label in range(5)] for of_image in labels])
    rows = subset(one_hot, fraction, seed, names=[f"{index}" for index in range(len(labels))])
    for label in np.flatnonzero(one_hot.any(axis=0)):
        assert one_hot[rows, label].sum() >= max(1, int(fraction * one_hot[:, label].sum() + 0.5))


@given(images, seeds)
def test_shots_are_exact_nested_and_of_other_patients_first(drawn, seed):
    targets, names, patients = unpack(drawn)
    last = set()
    for k in (1, 2, 3, 5, 100):
        rows = shots(targets, k, seed, names=names, patients=patients)
        assert last <= set(rows.tolist())
        last = set(rows.tolist())
        assert rows.tolist() == sorted(last)
        for label in np.unique(targets):
            of_class = [patients[index] or f"image {index}" for index in np.flatnonzero(targets == label)]
            found = [patients[index] or f"image {index}" for index in rows if targets[index] == label]
            assert len(found) == min(k, len(of_class))
            # A patient comes again only when all have come once.
            assert len(set(found)) == min(len(found), len(set(of_class)))


@given(several, seeds)
def test_shots_of_several_labels(drawn, seed):
    one_hot, names, patients = unpack_several(drawn)
    last = set()
    for k in (1, 2, 4, 100):
        rows = shots(one_hot, k, seed, names=names, patients=patients)
        assert last <= set(rows.tolist())
        last = set(rows.tolist())
        wanted = np.minimum(k, one_hot.sum(axis=0))
        assert (one_hot[rows].sum(axis=0) >= wanted).all()
        assert len(rows) <= wanted.sum()
        assert one_hot[rows].any(axis=1).all()


@given(images, seeds, st.integers(1, 4), st.randoms(use_true_random=False))
def test_shots_depend_neither_on_the_order_nor_on_the_names_of_classes(drawn, seed, k, random):
    targets, names, patients = unpack(drawn)
    chosen = {names[index] for index in shots(targets, k, seed, names=names, patients=patients)}
    order = list(range(len(drawn)))
    random.shuffle(order)
    moved_names, moved_patients = [names[i] for i in order], [patients[i] for i in order]
    moved = shots(4 - targets[order], k, seed, names=moved_names, patients=moved_patients)
    assert {moved_names[index] for index in moved} == chosen


@given(several, seeds, st.integers(1, 4), st.permutations(range(5)))
def test_shots_of_several_labels_do_not_depend_on_the_order_of_the_labels(drawn, seed, k, order):
    one_hot, names, patients = unpack_several(drawn)
    chosen = shots(one_hot, k, seed, names=names, patients=patients)
    assert shots(one_hot[:, order], k, seed, names=names, patients=patients).tolist() == chosen.tolist()


def test_one_shot_never_misses_a_class_that_a_uniform_draw_would():
    """Five images of 400 are of the rare class: a uniform draw of ten misses it in 88 % of draws."""
    targets = np.repeat([0, 1], [395, 5])
    names = [f"{index}.jpg" for index in range(400)]
    drawn = {tuple(shots(targets, 1, seed, names=names)) for seed in range(20)}
    assert all(targets[list(rows)].tolist() == [0, 1] for rows in drawn)
    assert len(drawn) > 15
    assert all(targets[subset(targets, 0.01, seed, names=names)].max() == 1 for seed in range(20))


def test_shots_stay_the_same_in_later_versions():
    """Published numbers of few-shot evaluation must be drawn again."""
    one_hot = np.array([[index % 2 == 0, index % 3 == 0, index == 7] for index in range(12)])
    names, patients = [str(index) for index in range(12)], [str(index // 2) for index in range(12)]
    drawn = [shots(one_hot, k, 0, names=names, patients=patients).tolist() for k in (1, 2)]
    assert drawn == [[3, 7, 10], [0, 3, 7, 10]]
