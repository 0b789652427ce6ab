"""Which labelling of a data set is taken, and which label a photograph has by it."""

from collections.abc import Mapping

from data_prep.readers.dataset import Dataset, Entry, Target
from data_prep.readers.vocabulary import NORMAL
from maskedclip_composer.data.records import join_labels
from maskedclip_composer.data.schema import EVALUATION_KINDS, Kind
from maskedclip_composer.errors import UserError


def choose_target(dataset: Dataset, target: str | None, kind: Kind) -> Target | None:
    """Return the labelling of that name, or for None the first that fits records of `kind`.

    Labellings with several labels a photograph are for multilabel records, the others for all other kinds.

    Returns:
        None where the kind needs no labels and there are none that fit.

    Raises:
        UserError: There is no such target, or it does not fit the kind.
    """
    name = target_name(dataset, target, kind)
    return dataset.targets[name] if name else None


def target_name(dataset: Dataset, target: str | None, kind: Kind) -> str:
    """Return the name of the labelling that `choose_target` takes; empty for None."""
    fitting = [name for name, of_set in dataset.targets.items() if of_set.several == (kind == "multilabel")]
    if target is None:
        if not fitting and kind in EVALUATION_KINDS:
            others = f" of this kind, but {', '.join(dataset.targets)}" * bool(dataset.targets)
            instead = next((of_set.kind for of_set in dataset.targets.values()), None)
            remedy = f"give --kind {instead}" if instead else "leave --kind out, or give another one"
            raise UserError(f"{dataset.name} has no labels{others}; {remedy}")
        return fitting[0] if fitting else ""
    if target not in dataset.targets:
        known = ", ".join(dataset.targets) or "none"
        raise UserError(f"--target {target}: {dataset.name} has no such target; it has {known}")
    if target not in fitting:
        several = dataset.targets[target].several
        what = "any number of labels" if several else "one class"
        remedy = "--kind multilabel" if several else "another --kind"
        raise UserError(
            f"--target {target}: {dataset.name} has {what} a photograph there, which makes no {kind} records; "
            f"give {remedy}"
        )
    return target


def evaluation_kind(dataset: Dataset, target: str | None) -> Kind:
    """Return the kind of labelled records that a labelling makes, or the first one for None."""
    name = next(iter(dataset.targets), "") if target is None else target
    return dataset.targets[name].kind if name in dataset.targets else "labelled"


def published_codes(target: Target | None) -> dict[str, tuple[str, str]]:
    """Map each code, in lower case, to the code that stands for its category, and the category."""
    if target is None or target.classes is None:
        return {}
    stands: dict[str, str] = {}
    for code, category in target.classes.items():
        stands.setdefault(category, code)
    return {code.casefold(): (stands[category], category) for code, category in target.classes.items()}


def judge(
    entry: Entry, target: Target | None, published: Mapping[str, tuple[str, str]], kind: Kind
) -> tuple[str, str, str]:
    """Return code, category and, where the photograph is of no use, why; of several codes there is no one category."""
    if entry.left_out or target is None:
        return "", "", entry.left_out
    if target.several:
        unknown = [label for label in entry.labels if label.casefold() not in published]
        if unknown:
            return "", "", f"label {unknown[0]!r} is not one of {', '.join(target.classes or ())}"
        if not entry.labels and NORMAL in (target.classes or {}).values():
            return "", "", "has no label"
        return join_labels(published[label.casefold()][0] for label in entry.labels), "", ""
    label = entry.label.casefold()
    if label in target.left_out:
        return "", "", target.left_out[label]
    if not label:
        return "", "", "has no label" if kind == "labelled" else ""
    if target.classes is None:
        return entry.label, entry.label, ""
    if label not in published:
        return "", "", f"label {entry.label!r} is not one of {', '.join(target.classes)}"
    return *published[label], ""
