"""Lay finished evaluations side by side: python -m maskedclip_composer.evaluation.compare FOLDER [FOLDER ...].

Each FOLDER is one that evaluate.py wrote. Prints a Markdown table, one row per folder and protocol.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from maskedclip_composer.errors import UserError, report

HEADER = ["| evaluation | protocol | seeds | ROC | PRC | test images |", "| --- | --- | --- | --- | --- | --- |"]


def compare(folders: list[Path]) -> str:
    """Return the table; scores are means over seeds with their sample standard deviation, in per cent.

    Raises:
        UserError: A folder has no results.
    """
    rows = []
    for folder in folders:
        path = folder / "results.json"
        if not path.is_file():
            raise UserError(f"{path} does not exist.\nGive folders that evaluate.py wrote.")
        results = json.loads(path.read_text())
        name = folder.name if results.get("complete", True) else f"{folder.name} (incomplete)"
        for protocol in dict.fromkeys(outcome["protocol"] for outcome in results["outcomes"]):
            own = [outcome["test"] for outcome in results["outcomes"] if outcome["protocol"] == protocol]
            cells = [name, protocol, str(len(own)), _percent(own, "roc"), _percent(own, "prc")]
            rows.append(f"| {' | '.join(cells)} | {results['images']['test']} |")
    return "\n".join([*HEADER, *rows])


def _percent(outcomes: list[dict[str, Any]], key: str) -> str:
    values = [100 * outcome[key] for outcome in outcomes]
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"


if __name__ == "__main__":
    try:
        if len(sys.argv) < 2:
            raise UserError(__doc__ or "")
        print(compare([Path(argument) for argument in sys.argv[1:]]))
    except UserError as error:
        sys.exit(report(error, "compare"))
