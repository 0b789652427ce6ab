"""A suite's ROC and PRC for the terminal."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from maskedclip_composer.evaluation.cells import Outcome
from maskedclip_composer.report.groups import load_results


def terminal_table(folder: Path) -> str:
    """Return the means over seeds in per cent: a row per protocol, amount and encoder, a column per task.

    Raises:
        UserError: There is no suite, no finished cell or a damaged one.
    """
    results = load_results(folder)
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for protocol, amount in results.settings:
        for encoder in results.encoders:
            own = {
                results.task_title(key.task): _scores(seeds.values())
                for key, seeds in results.groups.items()
                if (key.protocol, key.amount, key.encoder) == (protocol, amount, encoder)
            }
            if own:
                rows[results.protocol_title(protocol), amount.name, encoder] = own
    # Not by unstack(sort=False): with a gap, pandas 2.2 puts values into other rows.
    table = pd.DataFrame(rows.values(), index=pd.MultiIndex.from_tuples(rows, names=["protocol", "labels", "encoder"]))
    return f"ROC / PRC\n\n{table.fillna('-').to_string()}"


def _scores(outcomes: Iterable[Outcome]) -> str:
    roc, prc = np.mean([(outcome.metrics["roc"], outcome.metrics["prc"]) for outcome in outcomes], axis=0)
    return f"{100 * roc:.1f} / {100 * prc:.1f}"
