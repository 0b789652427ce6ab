"""The step beside its peer: what is printed, and that the gates can fail."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import gates
import pytest
import torch
from contestants import Task, check_losses
from sizes import PLAIN, SIZES

from tests.benchmarks.test_benchmarks import ROOT, check_spreads, tables


@pytest.fixture(scope="module")
def task() -> Task:
    """All contestants with the same weights, at the smallest size."""
    torch.manual_seed(0)
    task = Task(sizes=SIZES["tiny"], pairs=3, texts=2, max_tokens=40)
    weights = {name: value.clone() for name, value in task.ours(PLAIN).net.state_dict().items()}
    return replace(task, weights=weights)


def test_the_peer_imports_nothing_of_the_project():
    text = Path(ROOT, "benchmarks", "peer_step.py").read_text()
    lines = [line for line in text.splitlines() if line.startswith(("import", "from"))]
    assert lines
    assert not [line for line in lines if "maskedclip" in line or line.split()[1] in ("sizes", "contestants")]


def test_peers_and_ours_have_the_same_losses_and_a_wrong_weight_is_noticed(task):
    steps = {
        "P0": task.peer("explicit"),
        "P1": task.peer("sdpa"),
        "plain": task.ours(PLAIN),
        "ours": task.ours(gates.OURS),
    }
    assert check_losses(steps, 1e-5) > 0
    with torch.no_grad():
        steps["ours"].net.get_parameter("objectives.lg_clip.log_logit_scale").add_(0.1)
    with pytest.raises(AssertionError, match="losses differ"):
        check_losses(steps, 1e-5)
    with torch.no_grad():
        steps["ours"].net.get_parameter("objectives.lg_clip.log_logit_scale").fill_(float("nan"))
    with pytest.raises(AssertionError, match="losses differ by nan"):
        check_losses(steps, 1e-5)


def test_each_saving_saves_something(task):
    """A switch that nothing reads would pass every test of equality."""
    plain = task.ours(PLAIN)
    plain()
    before = (gates.count_operations(plain), gates.count_flops(plain.gradients), gates.saved(plain))
    for name in (name for name in gates.SWITCHES if name != "distinct_logits"):
        step = task.ours(replace(PLAIN, **{name: True}))
        step()
        after = (gates.count_operations(step), gates.count_flops(step.gradients), gates.saved(step))
        assert any(now < then for now, then in zip(after, before, strict=True)), name


def test_distinct_logits_save_memory_where_many_pairs_share_a_text():
    by_pair = replace(gates.OURS, distinct_logits=False)
    growth = [
        gates.contrastive_bytes(compute, 256, 4) / gates.contrastive_bytes(compute, 64, 4)
        for compute in (gates.OURS, by_pair)
    ]
    assert growth[0] < 4.1 < growth[1]  # four times the pairs


def test_a_gate_fails_above_its_limit_and_for_nan():
    assert gates.Gate(name="", value=0.97, limit=0.97).holds
    assert not gates.Gate(name="", value=0.9701, limit=0.97).holds
    assert not gates.Gate(name="", value=float("nan"), limit=1.0).holds


@pytest.mark.slow
def test_all_gates_hold():
    command = [sys.executable, str(ROOT / "benchmarks" / "gates.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.count("| ok |") >= 20


@pytest.mark.slow
def test_steps_are_compared_with_both_peers_at_every_length():
    short, long, update = tables("step.py", "--sizes=tiny", "--pairs=2", "--texts=1", "--rounds=2")
    for table in (short, long):
        check_spreads(table, columns=2)
        assert table["peer P0, explicit attention"][1] == table["peer P1, SDPA"][2] == "1.00 (1.00-1.00)"
        assert {f"ours without {name}" for name in gates.SWITCHES} < set(table)
    check_spreads(update, columns=2)
    assert int(update["foreach"][0]) == 1
    assert int(update["loop over parameters"][0]) > 50
