import math
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from maskedclip_composer.distributed import (
    gather,
    gather_table_with_gradient,
    gather_with_gradient,
    max_on_hosts,
)
from maskedclip_composer.losses.contrastive import label_guided_clip_loss
from maskedclip_composer.models.pretrain import MaskedCLIP, PretrainNet
from maskedclip_composer.types import Batch
from tests import tiny, two_ranks
from tests.composer_run import fit

RANKS = 2
TOLERANCE = 5e-6


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What two gloo processes computed."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {
        "WORLD_SIZE": str(RANKS),
        "LOCAL_WORLD_SIZE": str(RANKS),
        "NODE_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    processes, logs = [], []
    for rank in range(RANKS):
        logs.append((folder / f"rank{rank}.log").open("w+"))
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.two_ranks", str(folder)],
                cwd=Path(__file__).parents[1],
                env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=logs[-1],
                stderr=subprocess.STDOUT,
            )
        )
    deadline = time.monotonic() + 240
    try:
        # A rank that fails leaves the other waiting for it.
        while any(p.poll() is None for p in processes) and not any(p.poll() for p in processes):
            assert time.monotonic() < deadline, "the ranks did not finish"
            time.sleep(0.1)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    tails = []
    for log in logs:
        log.seek(0)
        tails.append(log.read()[-4000:])
        log.close()
    assert [p.returncode for p in processes] == [0] * RANKS, "\n".join(tails)
    return torch.load(folder / "results.pt", weights_only=False)


def test_without_a_process_group_gathering_changes_nothing():
    rows = torch.randn(3, 2, requires_grad=True)
    assert gather_with_gradient(rows) is rows
    assert gather(rows) is rows
    index = torch.arange(3)
    table, into = gather_table_with_gradient(rows, index)
    assert table is rows
    assert into is index
    assert max_on_hosts(7) == 7


def test_rows_are_gathered_in_the_order_of_ranks(results):
    assert results["gathered"].tolist() == [0, 1, 2, 10, 11, 12]


def test_a_gradient_of_any_layout_comes_back_to_its_rank(results):
    torch.testing.assert_close(results["gradient of a gather"], 2 * torch.arange(12.0).reshape(3, 4).T[:2])


def test_the_gathered_contrastive_loss_is_the_single_processs(results):
    loss, gradients = two_ranks.contrastive_loss(0, 1, gather_with_gradient)
    for name, expected in zip(("loss", "image", "text"), (loss, *gradients), strict=True):
        torch.testing.assert_close(results["contrastive"][name], expected, atol=1e-6, rtol=1e-5)


def test_tables_of_different_length_are_padded_and_indices_point_into_all_of_them(results):
    table, index = results["table"]
    assert table.tolist() == [[1, 1], [0, 0], [2, 2], [2, 2]]
    assert index.tolist() == [0, 0, 2, 3]


def test_hosts_agree_beside_a_group_that_takes_no_tensor_on_the_cpu(results):
    assert results["longest"] == (3, 1)


def test_the_loss_of_distinct_texts_is_the_single_processs_where_ranks_differ_in_texts(results):
    loss, gradients = two_ranks.distinct_contrastive_loss(0, 1)
    for name, expected in zip(("loss", *two_ranks.DISTINCT_GRADIENTS), (loss, *gradients), strict=True):
        torch.testing.assert_close(results["distinct"][name], expected, atol=1e-6, rtol=1e-5)


def assert_step_is_the_single_processs(step: tuple[dict, dict], net: PretrainNet, batch: Batch) -> None:
    model = MaskedCLIP(net)
    expected = model.loss(model(batch), batch)
    expected["total"].backward()
    losses, gradients = step
    for name, loss in expected.items():
        torch.testing.assert_close(losses[name], loss.detach(), atol=1e-6, rtol=1e-6)
    for name, parameter in model.named_parameters():
        assert (name in gradients) == (parameter.grad is not None)
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("step", ["step", "plain step"])
def test_a_step_of_ddp_has_the_single_processs_losses_and_gradients(results, step):
    """Both forms of the contrastive loss against the plain one."""
    net = two_ranks.plain_net()
    assert net.objectives["lg_clip"].loss is label_guided_clip_loss
    assert_step_is_the_single_processs(results[step], net, tiny.batch(4, 4))


@pytest.mark.parametrize("stage", two_ranks.STAGES)
def test_a_step_of_mmclip_does_too_where_one_rank_has_no_hidden_word(results, stage, tmp_path):
    net = two_ranks.mmclip_net(stage, tmp_path / "text_tower")
    assert_step_is_the_single_processs(results["mmclip", stage], net, two_ranks.mmclip_batch())


def test_a_step_of_dinov2_does_too_where_one_rank_has_no_hidden_patch(results):
    batch = two_ranks.half_hidden_batch()
    assert tiny.share(batch, 0, 2)["paired"]["block_mask"].any()
    assert not tiny.share(batch, 1, 2)["paired"]["block_mask"].any()
    assert_step_is_the_single_processs(results["dinov2"], tiny.net("dinov2"), batch)


def assert_runs_agree(run: dict, expected: dict) -> None:
    for losses, others in zip(run["losses"], expected["losses"], strict=True):
        assert losses.keys() == others.keys()
        for name, loss in losses.items():
            assert float(loss) == pytest.approx(float(others[name]), abs=TOLERANCE, rel=5e-6), name
    assert run["norms"] == pytest.approx(expected["norms"], rel=1e-4)
    for after, other in zip(run["parameters"], expected["parameters"], strict=True):
        assert after.keys() == other.keys()
        for name, value in after.items():
            # A bias of keys shifts all logits of a row alike: its gradient is rounding, which Adam blows up to its lr.
            if name.endswith(("qkv.bias", "key.bias", "in_proj_bias")):
                continue
            torch.testing.assert_close(
                value, other[name], atol=2e-4, rtol=1e-3, msg=lambda m, name=name: f"{name}: {m}"
            )


@pytest.mark.parametrize("recipe", dict(two_ranks.RUNS))
def test_two_ranks_train_as_one_process(results, recipe):
    depth = dict(reversed(two_ranks.RUNS))[recipe]
    _, record, metrics = fit(tiny.net(recipe, bridge_depth=depth), two_ranks.batches())
    norms = [float(value) for _, value in metrics.data["diagnostics/gradient_norm"]]
    single = {"losses": record.losses, "parameters": record.parameters, "norms": norms}
    assert_runs_agree(results[recipe, depth, False], single)


@pytest.mark.parametrize(("recipe", "depth"), two_ranks.RUNS)
def test_fsdp2_trains_as_ddp(results, recipe, depth):
    ddp, fsdp = results[recipe, depth, False], results[recipe, depth, True]
    assert ddp["units"] == 0
    assert fsdp["units"] > 10
    assert_runs_agree(fsdp, ddp)


@pytest.mark.parametrize("fsdp", [False, True])
@pytest.mark.parametrize("way", two_ranks.WAYS)
def test_every_way_to_compute_a_step_trains_alike_on_two_ranks(results, way, fsdp):
    assert_runs_agree(results[way, fsdp], results["maskedclip", 1, False])


def test_under_fsdp2_the_teacher_is_the_average_of_the_student(results):
    steps = results["maskedclip", 1, True]["parameters"]
    assert len(steps) == two_ranks.STEPS + 1
    names = [name for name in steps[0] if name.startswith("net.teacher.")]
    moved = 0
    for name in names:
        expected = steps[0][name]
        for step in steps[1:]:
            expected = 0.9 * expected + 0.1 * step[name.replace("net.teacher.", "net.branch.")]
            torch.testing.assert_close(step[name], expected, atol=1e-6, rtol=1e-5)
        moved += not torch.equal(steps[0][name], steps[-1][name])
    assert moved == len(names) - 1  # all but the fixed positions


@pytest.mark.parametrize("fsdp", [False, True])
def test_a_step_that_is_nan_on_one_rank_is_skipped_or_stops_the_run_on_all(results, fsdp):
    spoilt = results["spoilt", fsdp]
    for name, value in spoilt["never had"].items():
        assert torch.equal(spoilt["skipped"][name], value), name
    assert spoilt["loss alone"] == [1] * RANKS
    (fault,) = spoilt["faults"]
    mim = [report["losses"]["mim"] for report in fault["ranks"]]
    assert [math.isfinite(loss) for loss in mim] == [True, False]
    ids = [sample["id"] for report in fault["ranks"] for part in report["samples"].values() for sample in part]
    assert sorted(ids) == list(range(8))  # of both ranks
    assert len(set(spoilt["messages"])) == 1
    assert "Step 2: the gradient norm is nan, the loss mim is nan on rank 1" in spoilt["messages"][0]
