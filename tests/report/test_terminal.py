import shutil

import numpy as np

from maskedclip_composer.evaluation.cells import load_outcomes
from maskedclip_composer.report.terminal import terminal_table
from tests.report.conftest import write_suite


def test_every_group_has_its_means_and_what_is_missing_a_dash(tmp_path):
    write_suite(tmp_path)
    shutil.rmtree(tmp_path / "cells" / "aptos" / "probe" / "50%" / "MAE")
    lines = terminal_table(tmp_path).splitlines()
    assert lines[0] == "ROC / PRC"
    assert lines[2].split() == ["APTOS2019", "ODIR-5K"]
    rows = [line for line in lines[4:] if "/" in line or "-" in line]
    assert len(rows) == 2 * 3 * 3
    groups: dict[str, list] = {}
    for cell, outcome in load_outcomes(tmp_path):
        groups.setdefault(f"{cell.task} {cell.protocol} {cell.amount.name} {cell.encoder}", []).append(outcome.metrics)
    own = groups["odir finetune 10% MAE"]
    expected = " / ".join(f"{100 * np.mean([metrics[score] for metrics in own]):.1f}" for score in ("roc", "prc"))
    assert expected in rows[0]
    half = next(line for line in rows[9:] if " 50% " in line)
    assert half.split()[-4] == "-"
    own = groups["odir probe 50% MAE"]
    assert half.endswith(" / ".join(f"{100 * np.mean([m[score] for m in own]):.1f}" for score in ("roc", "prc")))
