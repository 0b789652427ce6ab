from maskedclip_composer.evaluation.cells import Cell
from maskedclip_composer.evaluation.kinds import Amount
from maskedclip_composer.report.groups import amount_order, missing_cells
from tests.report.conftest import suite


def cell(encoder: str, task: str, protocol: str, amount: Amount, seed: int = 0) -> Cell:
    return Cell(encoder=encoder, task=task, protocol=protocol, amount=amount, seed=seed)


def test_amounts_ascend_from_nothing_over_shots_to_shares():
    amounts = [Amount(fraction=1.0), Amount(shots=10), Amount(), Amount(fraction=0.1), Amount(shots=2)]
    assert [amount.name for amount in sorted(amounts, key=amount_order)] == [
        "zero-shot",
        "2-shot",
        "10-shot",
        "10%",
        "100%",
    ]


def test_zero_shot_is_expected_of_no_encoder_without_a_text_tower():
    seen = [cell("MAE", "aptos", "zero_shot", Amount()), cell("MAE", "odir", "zero_shot", Amount())]
    assert list(missing_cells(suite(complete=False), seen)) == []
    assert list(missing_cells(suite(complete=False), seen[:1])) == seen[1:]


def test_a_running_suite_misses_whole_encoders_and_a_complete_one_only_gaps():
    ten = Amount(fraction=0.1)
    seen = [cell("MAE", task, "probe", ten, seed) for task in ("aptos", "odir") for seed in (0, 1)]
    running = list(missing_cells(suite(complete=False), seen))
    assert len(running) == 2 * 2 * 2
    assert {item.encoder for item in running} == {"mine <b>&|_1", "twin of MAE"}
    assert list(missing_cells(suite(), seen)) == []
    assert list(missing_cells(suite(), seen[:-1])) == [seen[-1]]
