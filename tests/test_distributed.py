import math
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
from tests import several_ranks, tiny
from tests.composer_run import fit
from tests.ranks import results_of

TOLERANCE = 5e-6
RANKS = [2, 4]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def two(folder: Path) -> dict:
    """What two gloo processes computed."""
    return results_on(folder, 2)


@pytest.fixture(scope="module")
def results(two: dict, folder: Path) -> dict[int, dict]:
    """What one, two and four gloo processes computed, the others also from checkpoints of the two."""
    return {1: results_on(folder, 1), 2: two, 4: results_on(folder, 4)}


def results_on(folder: Path, ranks: int) -> dict:
    own = folder / f"{ranks}"
    own.mkdir()
    return results_of(several_ranks.main, ranks, own)


def test_without_a_process_group_gathering_changes_nothing():
    rows = torch.randn(3, 2, requires_grad=True)
    assert gather_with_gradient(rows) is rows
    assert gather(rows) is rows
    index = torch.arange(3)
    table, into = gather_table_with_gradient(rows, index)
    assert table is rows
    assert into is index
    assert max_on_hosts(7) == 7


def test_rows_are_gathered_in_the_order_of_ranks(two):
    assert two["gathered"].tolist() == [0, 1, 2, 10, 11, 12]


def test_a_gradient_of_any_layout_comes_back_to_its_rank(two):
    torch.testing.assert_close(two["gradient of a gather"], 2 * torch.arange(12.0).reshape(3, 4).T[:2])


@pytest.mark.parametrize("ranks", RANKS)
def test_the_gathered_contrastive_loss_is_the_single_processs(results, ranks):
    loss, gradients = several_ranks.contrastive_loss(0, 1, gather_with_gradient)
    for name, expected in zip(("loss", "image", "text"), (loss, *gradients), strict=True):
        torch.testing.assert_close(results[ranks]["contrastive"][name], expected, atol=1e-6, rtol=1e-5)


def test_tables_of_different_length_are_padded_and_indices_point_into_all_of_them(two):
    table, index = two["table"]
    assert table.tolist() == [[1, 1], [0, 0], [2, 2], [2, 2]]
    assert index.tolist() == [0, 0, 2, 3]


def test_hosts_agree_beside_a_group_that_takes_no_tensor_on_the_cpu(two):
    assert two["longest"] == (3, 1)


@pytest.mark.parametrize("ranks", RANKS)
def test_the_loss_of_distinct_texts_is_the_single_processs_where_ranks_differ_in_texts(results, ranks):
    loss, gradients = several_ranks.distinct_contrastive_loss(0, 1)
    for name, expected in zip(("loss", *several_ranks.DISTINCT_GRADIENTS), (loss, *gradients), strict=True):
        torch.testing.assert_close(results[ranks]["distinct"][name], expected, atol=1e-6, rtol=1e-5)


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


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("step", ["step", "plain step"])
def test_a_step_of_ddp_has_the_single_processs_losses_and_gradients(results, ranks, step):
    """Both forms of the contrastive loss against the plain one."""
    net = several_ranks.plain_net()
    assert net.objectives["lg_clip"].loss is label_guided_clip_loss
    assert_step_is_the_single_processs(results[ranks][step], net, tiny.batch(4, 4))


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("stage", several_ranks.STAGES)
def test_a_step_of_mmclip_does_too_where_some_ranks_have_no_hidden_word(results, ranks, stage, tmp_path):
    net = several_ranks.mmclip_net(stage, tmp_path / "text_tower")
    assert_step_is_the_single_processs(results[ranks]["mmclip", stage], net, several_ranks.mmclip_batch())


@pytest.mark.parametrize("ranks", RANKS)
def test_a_step_of_dinov2_does_too_where_some_ranks_have_no_hidden_patch(results, ranks):
    batch = several_ranks.half_hidden_batch()
    assert tiny.share(batch, 0, ranks)["paired"]["block_mask"].any()
    assert not tiny.share(batch, ranks - 1, ranks)["paired"]["block_mask"].any()
    assert_step_is_the_single_processs(results[ranks]["dinov2"], tiny.net("dinov2"), batch)


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


def single(recipe: str, depth: int) -> dict:
    _, record, metrics = fit(tiny.net(recipe, bridge_depth=depth), several_ranks.batches())
    norms = [float(value) for _, value in metrics.data["diagnostics/gradient_norm"]]
    return {"losses": record.losses, "parameters": record.parameters, "norms": norms}


@pytest.mark.parametrize("recipe", dict(several_ranks.RUNS))
def test_two_ranks_train_as_one_process(two, recipe):
    depth = dict(reversed(several_ranks.RUNS))[recipe]
    assert_runs_agree(two[recipe, depth, False], single(recipe, depth))


@pytest.mark.parametrize(("ranks", "fsdp"), [(1, True), (4, False), (4, True)])
def test_one_and_four_ranks_train_as_one_process(results, ranks, fsdp):
    run = results[ranks]["maskedclip", 1, fsdp]
    assert (run["units"] > 10) == fsdp
    assert_runs_agree(run, single("maskedclip", 1))


@pytest.mark.parametrize("kind", ["sharded", "full"])
@pytest.mark.parametrize("ranks", [1, 4])
def test_other_numbers_of_ranks_continue_a_checkpoint_of_two(results, ranks, kind):
    """Sharded ones under FSDP2, full ones under FSDP2 and on one rank without it."""
    whole, rest = results[2]["maskedclip", 1, True], results[ranks][kind]
    assert len(rest["losses"]) == several_ranks.STEPS - 2
    assert_runs_agree(rest, {key: whole[key][2:] for key in ("losses", "parameters", "norms")})


@pytest.mark.parametrize(("recipe", "depth"), several_ranks.RUNS)
def test_fsdp2_trains_as_ddp(two, recipe, depth):
    ddp, fsdp = two[recipe, depth, False], two[recipe, depth, True]
    assert ddp["units"] == 0
    assert fsdp["units"] > 10
    assert_runs_agree(fsdp, ddp)


@pytest.mark.parametrize("fsdp", [False, True])
@pytest.mark.parametrize("way", several_ranks.WAYS)
def test_every_way_to_compute_a_step_trains_alike_on_two_ranks(two, way, fsdp):
    assert_runs_agree(two[way, fsdp], two["maskedclip", 1, False])


def test_under_fsdp2_the_teacher_is_the_average_of_the_student(two):
    steps = two["maskedclip", 1, True]["parameters"]
    assert len(steps) == several_ranks.STEPS + 1
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
def test_a_step_that_is_nan_on_one_rank_is_skipped_or_stops_the_run_on_all(two, fsdp):
    spoilt = two["spoilt", fsdp]
    for name, value in spoilt["never had"].items():
        assert torch.equal(spoilt["skipped"][name], value), name
    assert spoilt["loss alone"] == [1] * 2
    (fault,) = spoilt["faults"]
    mim = [report["losses"]["mim"] for report in fault["ranks"]]
    assert [math.isfinite(loss) for loss in mim] == [True, False]
    ids = [sample["id"] for report in fault["ranks"] for part in report["samples"].values() for sample in part]
    assert sorted(ids) == list(range(8))  # of both ranks
    assert len(set(spoilt["messages"])) == 1
    assert "Step 2: the gradient norm is nan, the loss mim is nan on rank 1" in spoilt["messages"][0]
