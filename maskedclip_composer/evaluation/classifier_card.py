"""The README beside a trained classifier: what it is, and what it is not."""

from maskedclip_composer.evaluation.classifier_file import ClassifierFacts
from maskedclip_composer.evaluation.metrics import TITLES


def classifier_card(facts: ClassifierFacts) -> str:
    """Return the README of a classifier in Markdown."""
    kind = {
        "nominal": "one class for a photograph",
        "ordinal": "one grade for a photograph, in the order of the classes",
        "multilabel": "any number of labels for a photograph",
    }[facts.kind]
    how = "fine-tuned as a whole" if facts.trained_by == "finetune" else "a linear classifier of frozen features"
    recipe = facts.recipe
    prepared = (
        "none: it takes photographs as they are"
        if recipe is None
        else ", ".join(f"{key} {value}" for key, value in recipe.options().items())
    )
    validation = "unknown" if facts.val_roc is None else f"{facts.val_roc:.3f}"
    classes = "\n".join(
        f"- `{code}`" + ("" if code == name else f" {name}")
        for code, name in zip(facts.classes, facts.names, strict=True)
    )
    scores = "\n".join(
        f"| {title} | {value:.3f} |"
        for name, title in TITLES.items()
        if isinstance(value := facts.test.get(name), int | float)
    )
    return f"""# A classifier for {facts.task["title"]}

**Not a medical device.** It was made for research, is not approved for diagnosis, and must not decide about a patient.
Its probabilities are not calibrated for other cameras, clinics or populations than those of its training set.

    python -m maskedclip_composer predict PHOTOGRAPHS --model FOLDER_OF_THIS_FILE --out predictions.csv

| | |
|---|---|
| what | {how}: {kind} |
| predicted | {facts.rule} |
| encoder | {facts.encoder["name"]} |
| sha256 of the encoder | `{facts.encoder["sha256"]}` |
| protocol | {facts.protocol["title"]} ({facts.protocol["source"]}) |
| training | {facts.train_images} photographs ({facts.amount}), seed {facts.seed} |
| chosen | {facts.selection} |
| feature | {facts.pooling} |
| input | {facts.image_size} x {facts.image_size} pixels |
| preparation | {prepared} ({facts.recipe_source}) |
| scored in | {facts.precision} |

## Classes

{classes}

## On the test photographs of the set

One cell of a suite; the suite's report has the intervals, and the other seeds. Macro ROC on validation: {validation}.

| metric | value |
|---|---|
{scores}
"""
