"""Evaluate an encoder: composer evaluate.py FILE.yaml checkpoint=... data=... [key=value ...].

Linear probe and fine-tuning on a labelled data set, scored on its test split by macro ROC and PRC.

FILE.yaml   a config, for example yamls/evaluate.yaml
checkpoint  a run folder, an encoder .safetensors, a Composer .pt, timm:NAME or random:NAME
data        a folder or URL with train, val and test: MDS shards, or one folder of photographs per class
key=value   dotted overrides, for example fraction=0.1 seeds=[0,1,2] finetune.epochs=20; finetune=null leaves it out

Several ranks: composer -n 4 evaluate.py ... Results go to <output>/<run_name> and to MLflow.
"""

import os
import sys

from maskedclip_composer.errors import UserError, report


def main(arguments: list[str]) -> int:
    """Load the config, evaluate, print the table; return the exit status."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0 if arguments else 2
    path, *overrides = arguments
    try:
        from maskedclip_composer.config_file import load_config
        from maskedclip_composer.evaluation.config import EvaluateConfig

        config = load_config(EvaluateConfig, path, overrides)

        from maskedclip_composer.evaluation.run import evaluate  # imports Composer: only once the config is sound

        table = evaluate(config)
    except UserError as error:
        return report(error, "evaluate.py")
    if int(os.environ.get("RANK", 0)) == 0:
        print(f"\n{table}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
