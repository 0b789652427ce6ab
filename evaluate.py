"""Evaluate encoders: composer evaluate.py FILE.yaml checkpoints.NAME=SOURCE [checkpoints.OTHER=...] [key=value ...].

Every encoder on every task by every protocol, with several amounts of labels and several seeds.

FILE.yaml         a config, for example yamls/evaluate.yaml
checkpoints.NAME  a run folder, RUN/latest, an encoder .safetensors, a Composer .pt, timm:NAME, random:NAME, or what
                  others trained: retfound:FILE, mae:FILE, dinov2:FILE, flair:FILE, hf:FOLDER (docs/evaluation.md)
tasks             [idrid,aptos]: yamls/tasks/*.yaml, or a folder with train, val and test
protocols         [linear_probe,maskedclip_paper,knn,zero_shot]: yamls/protocols/*.yaml
key=value         fractions=[0.1,1.0] shots=[1,5,10] seeds=5 data_root=shards baseline=NAME run_name=...
                  save_models=true keeps what is trained, for: python -m maskedclip_composer predict
                  update_runs=false leaves the folders of the evaluated runs, and their runs in MLflow, as they are

Several ranks: composer -n 4 evaluate.py ... Results go to <output>/<run_name> and to MLflow; a suite that was stopped
continues. The report is made at the end, and again by: python -m maskedclip_composer.report <output>/<run_name>
"""

import os
import sys

from maskedclip_composer.callbacks.redaction import redact_tracebacks
from maskedclip_composer.rank_failure import stop


def main(arguments: list[str]) -> int:
    """Load the config, evaluate, write the report, print the scores; return the exit status."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0 if arguments else 2
    path, *overrides = arguments
    try:
        from maskedclip_composer.config_file import load_config
        from maskedclip_composer.evaluation.config import EvaluateConfig, load_protocols, load_tasks

        config = load_config(EvaluateConfig, path, overrides)
        tasks, protocols = load_tasks(config, path), load_protocols(config, path)

        from maskedclip_composer.evaluation.suite import evaluate  # imports Composer: only once the config is sound
        from maskedclip_composer.report.terminal import terminal_table
        from maskedclip_composer.report.write import write_report

        folder = evaluate(config, tasks, protocols)
        if int(os.environ.get("RANK", 0)) == 0:
            page = write_report(folder, tracking_uri=config.tracking.tracking_uri)
            tracking = config.tracking
            pages = []
            if config.update_runs:
                from maskedclip_composer.cards.write import rewrite_cards
                from maskedclip_composer.dashboard.after_suite import refresh_runs

                rewrite_cards(folder, to_mlflow=tracking.mlflow, tracking_uri=tracking.tracking_uri)
                pages = refresh_runs(folder, to_mlflow=tracking.mlflow, tracking_uri=tracking.tracking_uri)
            print("\n".join([*map(str, pages), "", terminal_table(folder), "", str(page)]), flush=True)
    except (Exception, SystemExit) as error:
        return stop(error, "evaluate.py")
    return 0


if __name__ == "__main__":
    redact_tracebacks()
    sys.exit(main(sys.argv[1:]))
