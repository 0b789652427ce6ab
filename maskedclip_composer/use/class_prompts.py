"""The prompts of the classes that a user names, by hand or by the labelling of a pack."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from maskedclip_composer.data.prompt_files import read_pack
from maskedclip_composer.data.prompts import PromptPack, template_complaint
from maskedclip_composer.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ClassPrompts:
    """Classes in words.

    Attributes:
        pack: Gives the templates and, for a labelling, the words.
        classes: As they are written by hand; empty for a labelling.
        dataset: Whose classes are meant; empty where they are written by hand.
        target: Which of its labellings; None takes the first.
    """

    pack: PromptPack
    classes: tuple[str, ...] = ()
    dataset: str = ""
    target: str | None = None

    @property
    def prompts(self) -> dict[str, list[str]]:
        """All prompts of each class. Words that are written by hand are taken as they are, in every template."""
        if not self.classes:
            return self.pack.class_prompts(self.dataset, self.target)
        return {words: list(dict.fromkeys(self.pack.prompts(words, "finding"))) for words in self.classes}

    def title(self, name: str) -> str:
        """Return what a class is called in tables: a code with the category that the pack has for it."""
        if self.classes:
            return name
        targets = self.pack.zero_shot[self.dataset]
        return f"{name}: {targets[self.target or next(iter(targets))][name]}"

    def by_template(self) -> dict[str, dict[str, list[str]]]:
        """Return the prompts of each class with each single template."""
        packs = {template: replace(self.pack, templates=(template,)) for template in self.pack.templates}
        return {template: replace(self, pack=pack).prompts for template, pack in packs.items()}


def class_prompts(
    *,
    classes: Sequence[str] | None,
    dataset: str | None,
    target: str | None = None,
    pack: str = "retina-en",
    templates: Sequence[str] | None = None,
    multilabel: bool = False,
) -> ClassPrompts:
    """Read the options of the command.

    Args:
        classes: Words, one or more per class; or
        dataset: Data set of the pack, whose classes are meant.
        target: Which of its labellings.
        pack: Name or file of the pack.
        templates: Take the place of the pack's; `{}` stands for the words.
        multilabel: Whether one class is enough.

    Raises:
        UserError: A template or a class is not as it must be, or the pack does not know the data set.
    """
    content = read_pack(pack)
    if templates:
        written = [template.replace("{}", "{category}") for template in templates]
        for template, given in zip(written, templates, strict=True):
            if complaint := template_complaint(template):
                raise UserError(f"--template {given!r} {complaint}.\nWrite {{}} where the words of a class go.")
        content = replace(content, templates=tuple(dict.fromkeys(written)))
    if dataset is not None:
        result = ClassPrompts(pack=content, dataset=dataset, target=target)
        result.prompts  # noqa: B018  the pack may not know it
        return result
    if target is not None:
        raise UserError(f"--target {target} is for --dataset.\nLeave it out: --classes has the words themselves.")
    names = [" ".join(words.split()) for words in classes or ()]
    if not all(names):
        raise UserError("--classes has an empty one.\nGive each class at least one word.")
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UserError(f"--classes has {repeated[0]!r} twice.\nTake one out.")
    if len(names) < 2 and not multilabel:
        raise UserError(
            f"--classes {' '.join(names)!r} alone: a class is scored against others.\n"
            "Give at least two, or --multilabel."
        )
    return ClassPrompts(pack=content, classes=tuple(names))
