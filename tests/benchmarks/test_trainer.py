"""What is measured of the Trainer: the same work in every variant, and goals that can be missed."""

import pytest
import trainer
from trainer_blocks import Watch

from tests.benchmarks.test_benchmarks import SPREAD, check_spreads, output


@pytest.mark.benchmark
def test_bare_step_and_trainer_do_the_same_and_are_compared():
    arguments = ["--size=tiny", "--pairs=3", "--steps=2", "--rounds=2", "--pixels=64", "--distinct=2"]
    (table,), printed = output("trainer.py", *arguments)
    check_spreads(table, columns=4)
    assert list(table)[2:] == [trainer.BARE, trainer.MEMORY, trainer.SHARDS, trainer.ALONE]
    assert table[trainer.BARE][1] == table[trainer.MEMORY][2] == "1.000 (1.000-1.000)"
    assert "3 + 3 images, 0 loader processes" in printed
    goals = [line for line in printed.splitlines() if line.startswith("goal: ")]
    assert len(goals) == 2
    assert all(SPREAD.search(goal) and goal.endswith("shown, not judged on a CPU") for goal in goals)


def test_losses_that_differ_or_are_not_numbers_are_refused():
    def blocks(loss: float) -> dict[str, Watch]:
        losses = {trainer.BARE: [2.0, 1.0], trainer.MEMORY: [2.0, 1.0], trainer.SHARDS: [2.0, loss]}
        return {name: Watch(lead=1, length=2, on_gpu=False, losses=found) for name, found in losses.items()}

    assert trainer.check_losses(blocks(1.00001), 1e-4) == pytest.approx(1e-5)
    for loss in (1.001, float("nan")):
        with pytest.raises(AssertionError, match="losses differ"):
            trainer.check_losses(blocks(loss), 1e-4)


def test_goals_are_judged_by_the_median_and_on_a_gpu_alone(capsys):
    times = {trainer.BARE: [1.0, 1.0, 2.0], trainer.MEMORY: [1.0, 1.04, 2.4], trainer.ALONE: [0.1, 0.1, 0.1]}
    for shards, met in (([1.0, 1.04, 2.4], True), ([1.1, 1.2, 2.4], False)):
        assert trainer.report(times | {trainer.SHARDS: shards}, "clock", judged=True) is met
        assert trainer.report(times | {trainer.SHARDS: shards}, "CPU", judged=False)
    verdicts = [line.rsplit(", ", 1)[1] for line in capsys.readouterr().out.splitlines() if line.startswith("goal")]
    assert verdicts[:2] == ["ok", "ok"]
    assert verdicts[4:6] == ["ok", "MISSED"]
