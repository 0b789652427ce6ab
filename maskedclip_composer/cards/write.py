"""`model_card.md` and `data_card.md` of a run."""

import logging
from collections.abc import Iterable
from pathlib import Path

from maskedclip_composer.callbacks.atomic import write_whole
from maskedclip_composer.cards.data_card import data_card
from maskedclip_composer.cards.model_card import model_card
from maskedclip_composer.cards.run_files import ENCODER, read_run
from maskedclip_composer.cards.suites import joined, remember, remembered
from maskedclip_composer.cards.training_data import read_streams
from maskedclip_composer.errors import UserError

log = logging.getLogger(__name__)

MODEL_CARD, DATA_CARD = "model_card.md", "data_card.md"


def write_cards(run: Path, suites: Iterable[Path] = (), *, out: Path | None = None) -> list[Path]:
    """Write both cards of a run and return their paths.

    Suites that were given before are in it again; those of this call are remembered where the cards go to the run's
    own folder.

    Args:
        run: Folder of the run.
        suites: Folders of suites that have evaluated it.
        out: Where the cards go; None is the run's folder.

    Raises:
        UserError: `run` is no run, or one of `suites` is no suite.
    """
    files = read_run(run)
    given = list(suites)
    for folder in given:
        if not (folder / "suite.json").is_file():
            raise UserError(f"suite {folder} holds no suite.json.\nGive the folder that evaluate.py wrote.")
    known = joined(remembered(run), given)
    evaluations, told = [], []
    if known and not (run / ENCODER).is_file():
        told = [f"suite {folder.name}: there is no {ENCODER} whose weights it could be known by" for folder in known]
    elif known:
        from maskedclip_composer.cards.evaluations import read_evaluations  # torch and scikit-learn take seconds

        evaluations, told = read_evaluations(run, known)
    streams = read_streams(files)
    place = out or run
    texts = {
        MODEL_CARD: model_card(files, streams, evaluations, told),
        DATA_CARD: data_card(files, streams),
    }
    for name, text in texts.items():
        write_whole(place / name, text)
    if out is None and given:
        remember(run, known)
    return [place / name for name in texts]


def rewrite_cards(suite: Path, *, to_mlflow: bool, tracking_uri: str | None = None) -> list[Path]:
    """Write the cards of every run that a suite has evaluated; a failure costs a warning.

    Args:
        suite: Its folder.
        to_mlflow: Whether the runs' own runs in MLflow get them too.
        tracking_uri: Of MLflow with its credentials, which a run does not keep.

    Returns:
        The cards.
    """
    from maskedclip_composer.cards.evaluations import runs_of
    from maskedclip_composer.cards.tracking import log_cards  # MLflow takes seconds to import

    written: list[Path] = []
    for run in runs_of(suite):
        try:
            cards = write_cards(run, [suite])
            if to_mlflow:
                log_cards(run, cards, tracking_uri)
        except Exception as error:  # whatever it is, the results of the suite are worth more
            log.warning(f"the cards of {run} were not written again: {type(error).__name__}: {error}")
        else:
            written += cards
    return written
