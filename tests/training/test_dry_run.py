"""What a run would cost: said in plain numbers, and without a trace."""

import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import train
from maskedclip_composer.build import build_model
from maskedclip_composer.config import TrainConfig
from maskedclip_composer.config_file import load_config
from maskedclip_composer.costs.batches import made_up_batch
from maskedclip_composer.costs.devices import Device, peak_tflops
from maskedclip_composer.costs.estimate import GIB, RESERVE, estimate, memory_gib, remedies, smaller
from maskedclip_composer.costs.passes import Activations, StepFlops
from maskedclip_composer.costs.plan import Plan
from maskedclip_composer.costs.step_cost import StepCost, step_activations, step_cost, step_flops
from maskedclip_composer.types import PairedPart, UnpairedPart
from tests.training.conftest import DEBUG

Overrides = Callable[..., list[str]]


def config(overrides: Overrides, *more: str) -> TrainConfig:
    return load_config(TrainConfig, DEBUG, overrides(*more))


def cost(gib_of_activations: float = 2.0, tflops: int = 10, parameters: int = 0) -> StepCost:
    return StepCost(
        parameters={"image_encoder": parameters},
        teachers=0,
        fixed=0,
        flops=StepFlops(forward={"masked": tflops * 10**12 // 2}, backward=tflops * 10**12 // 2),
        activations={"amp_bf16": Activations(saved={"masked": 1}, peak=int(gib_of_activations * GIB))},
    )


def test_it_prints_and_leaves_nothing(overrides: Overrides, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert train.main([DEBUG, *overrides("dry_run=true", "estimate.ranks=2", "estimate.price_per_gpu_hour=2")]) == 0
    text = capsys.readouterr().out
    assert "4 steps an epoch, 8 steps of 16 images in all" in text  # 33 unpaired images, 8 a step
    for name in ("paired", "unpaired", "forward, packed", "forward, teacher", "backward", "A100-40", "H200"):
        assert re.search(rf"^{name} ", text, re.MULTILINE), name
    assert "Where it does not fit" not in text
    assert not (tmp_path / "runs").exists()


def test_other_ranks_are_silent(
    overrides: Overrides, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("RANK", "1")
    assert train.main([DEBUG, *overrides("dry_run=true")]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("data.paired.remote=/nowhere", ["data.paired", "/nowhere"]),
        ("optimizer.warmup=8ba", ["optimizer.warmup=8ba", "trainer.max_duration=8ba"]),
        ("estimate.ranks=3", ["data.paired.batch_size", "3 ranks"]),
        ("estimate.ranks=0", ["estimate.ranks=0"]),
        ("estimate.mfu=40", ["estimate.mfu=40"]),
        ("estimate.price_per_gpu_hour=-1", ["estimate.price_per_gpu_hour=-1"]),
        ("estimate.gpus=[H300]", ["estimate.gpus", "H300", "H200"]),
    ],
)
def test_errors(override: str, named: list[str], overrides: Overrides, capsys: pytest.CaptureFixture[str]):
    assert train.main([DEBUG, *overrides("dry_run=true", override)]) == 2
    message = capsys.readouterr().err
    for name in named:
        assert name in message


def test_hours_money_and_room(overrides: Overrides):
    run = config(overrides, "estimate.mfu=0.5", "estimate.price_per_gpu_hour=3", "trainer.precision=amp_bf16")
    plan = Plan(samples={}, batch={}, steps_per_epoch=1, steps=3600, ranks=4)
    found = estimate(run, cost(tflops=10), plan, Device(tflops=20, memory=2 + RESERVE, names=()))
    assert found.fits
    assert found.hours == pytest.approx(1.0)  # 10 TFLOP at 10 TFLOP/s, 3600 times
    assert found.gpu_hours == pytest.approx(4.0)
    assert found.price == pytest.approx(12.0)
    assert not estimate(run, cost(2.1), plan, Device(tflops=20, memory=2 + RESERVE, names=())).fits
    assert estimate(run, cost(), plan, Device(tflops=0, memory=80, names=())).hours is None
    assert peak_tflops("NVIDIA H200") == 989.5
    assert peak_tflops("a CPU") is None


def test_state_is_sharded_or_doubled(overrides: Overrides):
    run = config(overrides, "trainer.precision=amp_bf16")
    of = cost(parameters=2**28)  # a GiB
    alone, ddp = (memory_gib(run, of, ranks) for ranks in (1, 4))
    fsdp = memory_gib(replace(run, parallelism="fsdp"), of, 4)
    assert sum(alone.values()) == pytest.approx(4 + 2)
    assert sum(ddp.values()) == pytest.approx(5 + 2)  # gradients again, to be sent
    assert sum(fsdp.values()) == pytest.approx(1 + 2)


def test_chunks_keep_whole_parameters_with_fsdp(overrides: Overrides):
    chunks = config(overrides, "trainer.precision=amp_bf16", "compute.chunk_size=2")
    of = cost(parameters=2**28)  # a GiB
    ddp, fsdp = (sum(memory_gib(replace(chunks, parallelism=name), of, 4).values()) for name in ("ddp", "fsdp"))
    assert ddp == pytest.approx(5 + 2)
    assert fsdp == pytest.approx(1 + 1 + 2)


def test_what_is_not_trained_is_a_teacher_or_fixed(overrides: Overrides):
    with_teacher = step_cost(config(overrides), build_model, precisions=("fp32",))
    without = step_cost(config(overrides, "objectives.mfd=null"), build_model, precisions=("fp32",))
    assert with_teacher.teachers > 0 == without.teachers
    assert with_teacher.fixed == without.fixed > 0
    assert "teacher" in with_teacher.state_bytes("ddp", 1, chunked=False)
    assert "teacher" not in without.state_bytes("ddp", 1, chunked=False)


def test_parameters_are_those_of_the_network(overrides: Overrides):
    run = config(overrides)
    trained = [parameter for parameter in build_model(run).parameters() if parameter.requires_grad]
    found = step_cost(run, build_model, precisions=("fp32",))
    assert sum(found.parameters.values()) == sum(parameter.numel() for parameter in trained)
    assert set(found.parameters) == {"image_encoder", "bridge", "text_encoder", "mim", "lg_clip", "mfd"}


def test_what_is_computed_again_saves_memory_and_is_no_useful_operation(overrides: Overrides):
    plain = config(overrides)
    full = config(overrides, "compute.activation={image: full, text: full, decoders: full}")
    chunks = config(overrides, "compute.chunk_size=2")
    budget = config(overrides, "compute.activation.image=budget:0.3")
    flops = [step_flops(run, build_model).total for run in (plain, full, chunks, budget)]
    assert len(set(flops)) == 1
    of_plain, *others = (
        step_activations(run, build_model, precisions=("fp32",))["fp32"] for run in (plain, full, chunks, budget)
    )
    for found in others:
        assert found.total_saved < of_plain.total_saved
        assert found.peak < of_plain.peak


def test_operations_grow_with_the_batch_and_are_dealt_over_ranks(overrides: Overrides):
    small = config(overrides, "data.paired.batch_size=8", "data.unpaired.batch_size=8")
    large = config(overrides, "data.paired.batch_size=16", "data.unpaired.batch_size=16")
    one, two = step_flops(small, build_model), step_flops(large, build_model)
    assert step_flops(large, build_model, ranks=2) == one
    for part in set(one.forward) - {"loss"}:
        assert two.forward[part] == 2 * one.forward[part]


def test_remedies_bring_what_they_say(overrides: Overrides):
    run = config(overrides, "trainer.precision=fp32")
    now = step_cost(run, build_model, ranks=2, precisions=("fp32",))
    before = sum(memory_gib(run, now, 2).values())
    found = dict(remedies(run, now, build_model, 2))
    assert len(found) == 6
    assert "parallelism=fsdp" in found
    assert all(size < before for size in found.values())


@pytest.mark.parametrize(
    ("objectives", "towers"),
    [
        ("{mim: {}, lg_clip: null, mfd: null}", "{image: full, decoders: full}"),
        ("{mim: null, lg_clip: {}, mfd: null}", "{image: full, text: full}"),
    ],
)
def test_remedies_name_the_towers_that_a_recipe_has(overrides: Overrides, objectives: str, towers: str):
    parts = ["bridge.depth=0"] if "mim: {}" in objectives else ["data.unpaired=null"]
    run = config(overrides, "trainer.precision=fp32", f"objectives={objectives}", *parts)
    now = step_cost(run, build_model, ranks=1, precisions=("fp32",))
    found = [written for written, _ in remedies(run, now, build_model, 1)]
    assert shlex.quote(f"compute.activation={towers}") in found


def test_remedies_are_settings_that_a_shell_takes(overrides: Overrides):
    run = config(overrides, "trainer.precision=amp_bf16", "compute.compile=auto")
    for written, expected in smaller(run, 2):
        given = shlex.split(written, comments=True)
        assert replace(config(overrides, "trainer.precision=amp_bf16", "compute.compile=auto", *given)) == expected
    names = [written for written, _ in smaller(run, 2)]
    assert [name.split("  # ")[1] for name in names[-2:]] == ["changes rounding", "another recipe"]


def test_what_brings_nothing_is_no_remedy(overrides: Overrides):
    full = "compute.activation={image: full, text: full, decoders: full}"
    run = config(overrides, "trainer.precision=fp32", full, "compute.chunk_size=1", "parallelism=fsdp")
    now = step_cost(run, build_model, ranks=2, precisions=("fp32",))
    assert all("batch_size" in name for name, _ in remedies(run, now, build_model, 2))


def test_a_budget_of_decoders_brings_nothing_where_none_is_compiled(overrides: Overrides):
    budgets = ("compute.activation.decoders=budget:0.3", "compute.compile=auto")
    plain, kept = config(overrides), config(overrides, *budgets)
    before, after = (step_activations(run, build_model, precisions=("fp32",))["fp32"] for run in (plain, kept))
    assert after.saved["decoder_blocks"] < before.saved["decoder_blocks"]
    assert {name: size for name, size in after.saved.items() if name != "decoder_blocks"} == {
        name: size for name, size in before.saved.items() if name != "decoder_blocks"
    }


def test_a_made_up_batch_has_all_that_a_loader_makes(overrides: Overrides):
    run = config(overrides)
    plain = made_up_batch(run, (4, 4), ranks=2)
    assert plain["paired"].keys() == PairedPart.__required_keys__
    assert plain["unpaired"].keys() == UnpairedPart.__required_keys__
    assert len(plain["paired"]["image"]) == 4
