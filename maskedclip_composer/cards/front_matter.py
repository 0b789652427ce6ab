"""The metadata at the top of a model card, as the Hugging Face hub reads it."""

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from huggingface_hub import EvalResult, ModelCardData

from maskedclip_composer.cards.definitions import HUB_METRICS, TITLES
from maskedclip_composer.cards.run_files import RunFiles
from maskedclip_composer.cards.terms import Terms
from maskedclip_composer.cards.training_data import StreamData

if TYPE_CHECKING:
    from maskedclip_composer.cards.evaluations import Evaluation

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_TASK = "image-classification"
_TAGS = {
    "no commercial use": "non-commercial",
    "research use only": "research-only",
    "use as the competition allows": "competition-terms",
    "use as the challenge allows": "challenge-terms",
    "use by those who have signed": "signed-agreement",
    "not to be passed on": "no-redistribution",
    "pass on unchanged only": "no-derivatives",
    "pass on under the same licence": "share-alike",
}
"""Of what the terms ask."""


def front_matter(
    run: RunFiles,
    streams: Sequence[StreamData],
    terms: Terms,
    evaluations: "Sequence[Evaluation]",
    language: str | None,
) -> ModelCardData:
    """Return the metadata.

    The licence is never chosen here: `unknown` where the terms of a part are, else `other`, which are the terms of the
    training data together.
    """
    datasets = {name for stream in streams for name in stream.read.datasets if _HUB_NAME.fullmatch(name)}
    results = [result for evaluation in evaluations for result in _results(evaluation)]
    metrics = list(dict.fromkeys(result.metric_type for result in results))
    return ModelCardData(
        language=language,
        license="unknown" if terms.unknown else "other",
        license_name=None if terms.unknown else "terms-of-the-training-data",
        library_name="timm",
        pipeline_tag="image-feature-extraction",
        tags=["retina", "colour-fundus-photography", "medical", "maskedclip", *run.objectives, *_tags(terms)],
        datasets=sorted(datasets) or None,
        metrics=metrics or None,
        model_name=run.name,
        eval_results=results or None,
        ignore_metadata_errors=False,
    )


def _tags(terms: Terms) -> list[str]:
    return [_TAGS[asks] for asks in terms.asks if asks in _TAGS] + ["unknown-terms"] * bool(terms.unknown)


def _results(evaluation: "Evaluation") -> list[EvalResult]:
    """Return a result for each score that the hub knows, with its interval and what it rests on as arguments."""
    results = []
    for key, summary in evaluation.summaries.items():
        task = next(task for task in evaluation.tasks if task.name == key.task)
        protocol = evaluation.protocols[key.protocol].get("title") or key.protocol
        for name, metric in HUB_METRICS.items():
            if name not in summary.mean:
                continue
            arguments: dict[str, Any] = {"seeds": len(summary.seeds), "train_images": summary.train_images[1]}
            arguments |= {"test_images": task.images.get("test"), "contaminated_test_images": task.contaminated}
            if (interval := summary.intervals.get(name)) is not None and all(map(math.isfinite, interval)):
                arguments["interval_95"] = [round(float(end), 4) for end in interval]
            results.append(
                EvalResult(
                    task_type=_TASK,
                    dataset_type=key.task,
                    dataset_name=task.title,
                    dataset_split="test",
                    metric_type=metric,
                    metric_value=round(summary.mean[name], 4),
                    metric_name=f"{TITLES[name]}, {protocol}, {key.amount.name} of labels",
                    metric_args=arguments,
                )
            )
    return results
