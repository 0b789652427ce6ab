"""From a folder of photographs and a table of labels to a fine-tuned classifier with ROC and PRC.

python docs/tutorial.py photos/ photos.csv runs/tutorial random:vit_tiny_patch16_224
"""

import sys
from pathlib import Path

from data_prep.convert import Conversion
from data_prep.manifest import Source
from data_prep.readers.dataset import Division
from data_prep.table import convert_source
from maskedclip_composer.evaluation.config import EvaluateConfig
from maskedclip_composer.evaluation.protocols.config import FinetuneConfig, ProtocolConfig
from maskedclip_composer.evaluation.tasks import TaskConfig


def main(photos: str, table: str, out: str, encoder: str, epochs: int = 8) -> None:
    """Divide and convert, fine-tune, print the scores with 95 % intervals, write the report."""
    source = Source(table=Path(table), images=Path(photos).resolve(), kind="labelled")
    convert_source(Conversion(out=f"{out}/shards", overwrite=True), source, Division(test=0.3, val=0.2))

    from maskedclip_composer.evaluation.suite import evaluate  # takes seconds: not before it is needed
    from maskedclip_composer.report import groups, resampling, summary, write

    tuned = ProtocolConfig(title="Fine-tuned", source="here", finetune=FinetuneConfig(epochs=epochs, warmup_epochs=2))
    task = TaskConfig(title="My labels", data=str(Path(out, "shards").resolve()))
    settings = EvaluateConfig(
        checkpoints={"mine": encoder}, tasks=["mine"], protocols=["tuned"], seeds=1, workers=1, output=out
    )
    results = groups.load_results(evaluate(settings, {"mine": task}, {"tuned": tuned}))
    for found in summary.summarise(results, resampling.resample(results, draws=2000)).values():
        for score, (low, high) in found.intervals.items():
            print(f"{score.upper()} {found.mean[score]:.3f} (95 %: {low:.3f} to {high:.3f})")
    print(write.write_report(results.folder))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4])
