import shutil

from maskedclip_composer.evaluation.kinds import Amount
from maskedclip_composer.report.groups import amount_order, load_results
from tests.report.conftest import cells, write_suite


def test_amounts_ascend_from_nothing_over_shots_to_shares():
    amounts = [Amount(fraction=1.0), Amount(shots=10), Amount(), Amount(fraction=0.1), Amount(shots=2)]
    assert [amount.name for amount in sorted(amounts, key=amount_order)] == [
        "zero-shot",
        "2-shot",
        "10-shot",
        "10%",
        "100%",
    ]


def test_what_was_planned_and_is_not_there_is_missing(tmp_path):
    write_suite(tmp_path, complete=False)
    gone = list(cells())[3:5]
    for cell in gone:
        shutil.rmtree(tmp_path / "cells" / cell.group / f"seed{cell.seed}")
    assert load_results(tmp_path).missing == gone
