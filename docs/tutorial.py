"""From a folder of photographs and a table of labels to a fine-tuned classifier with ROC and PRC.

python docs/tutorial.py photos/ photos.csv runs/tutorial random:vit_tiny_patch16_224
"""

import sys
from pathlib import Path

from data_prep.convert import Conversion
from data_prep.manifest import Source
from data_prep.readers.dataset import Division
from data_prep.table import convert_source


def main(photos: str, table: str, out: str, encoder: str, epochs: int = 8) -> None:
    """Divide and convert, fine-tune, print the scores with 95 % intervals, write the report."""
    source = Source(table=Path(table), images=Path(photos).resolve(), kind="labelled")
    convert_source(Conversion(out=f"{out}/shards", overwrite=True), source, Division(test=0.3, val=0.2))

    from maskedclip_composer.evaluation import config, protocols, suite, tasks  # late: the import takes seconds
    from maskedclip_composer.report import groups, resampling, summary, write

    task = tasks.TaskConfig(title="My labels", data=str(Path(out, "shards").resolve()))
    tune = protocols.config.FinetuneConfig(epochs=epochs, warmup_epochs=2)
    protocol = protocols.config.ProtocolConfig(title="Fine-tuning", source="docs/tutorial.py", finetune=tune)
    settings = config.EvaluateConfig(
        checkpoints={"mine": encoder}, tasks=["mine"], protocols=["tuned"], seeds=1, workers=1, output=out
    )
    folder = suite.evaluate(settings, {"mine": task}, {"tuned": protocol})
    results = groups.load_results(folder)
    for key, found in summary.summarise(results, resampling.resample(results, draws=2000)).items():
        for score, (low, high) in found.intervals.items():
            print(f"{key.encoder}: {score.upper()} {found.mean[score]:.3f} (95 %: {low:.3f} to {high:.3f})")
    print(write.write_report(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
