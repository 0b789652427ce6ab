"""Pre-train an image encoder: composer train.py FILE.yaml [key=value ...].

FILE.yaml   a config, for example yamls/pretrain.yaml or yamls/demo.yaml
key=value   dotted overrides, for example data.paired.batch_size=64 trainer.max_duration=10ep

Several ranks: composer -n 4 train.py FILE.yaml. The same command continues an interrupted run.
What it would cost: composer train.py FILE.yaml dry_run=true.
"""

import errno
import os
import sys

from maskedclip_composer.callbacks.redaction import redact_tracebacks
from maskedclip_composer.errors import UserError
from maskedclip_composer.rank_failure import stop


def main(arguments: list[str]) -> int:
    """Load, build, fit; return the exit status."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0 if arguments else 2
    path, *overrides = arguments
    try:
        from maskedclip_composer.config import TrainConfig, to_yaml
        from maskedclip_composer.config_file import load_config

        config = load_config(TrainConfig, path, overrides)
        if int(os.environ.get("RANK", 0)) == 0:
            print(to_yaml(config), flush=True)

        # These import Composer: only once the config is sound.
        if config.dry_run:
            from maskedclip_composer.costs.dry_run import dry_run

            dry_run(config)
            return 0
        from maskedclip_composer.build import build_trainer
        from maskedclip_composer.callbacks.export import is_complete

        trainer = build_trainer(config)
        if is_complete(trainer.state):
            print(f"{config.run_folder} is complete. To go on: another run_name, or a larger trainer.max_duration.")
        else:
            trainer.fit()
        trainer.close()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return stop(error, "train.py")
        what = f"{error.strerror}{f': {error.filename}' if error.filename else ''}"
        return stop(UserError(f"{what}.\nMake room; the same command goes on from the newest checkpoint."), "train.py")
    except (Exception, SystemExit) as error:
        return stop(error, "train.py")
    print(f"Encoder: {config.run_folder / 'encoder.safetensors'}")
    return 0


if __name__ == "__main__":
    redact_tracebacks()
    sys.exit(main(sys.argv[1:]))
