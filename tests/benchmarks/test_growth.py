"""What grows how fast: at sizes of seconds, and the fits on data whose growth is known."""

import pytest
from growth_loader import write
from growth_step import exponent, line
from streaming import StreamingDataset

from tests.benchmarks.test_benchmarks import tables


@pytest.mark.benchmark
def test_growth_prints_its_five_tables_and_draws_its_four_plots(tmp_path):
    memory, text, contrast, loader, order = tables("growth.py", "--small", "--plots", str(tmp_path))
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["contrastive", "loader", "memory", "texts"]
    saved = {name: float(memory[name][0]) for name in ("peer P0", "peer P1", "ours")}
    assert 0 < saved["ours"] < saved["peer P1"] <= saved["peer P0"]
    assert all(float(memory[name][1].rstrip("%")) < 1 for name in saved), "saved bytes are not linear in the batch"
    assert float(text["more texts of 24 tokens"][1]) == pytest.approx(1)
    assert 1 < float(text["8 texts of more tokens"][1]) < 1.2
    assert float(contrast["all pairs"][-1]) > 1.2
    assert len(loader) == 6
    assert {"2,000", "20,000"} < set(order)
    assert all(float(cell) > 0 for row in list(loader.values())[2:] for cell in row[1:])


def test_fits_find_a_line_and_an_exponent():
    slope, base, residual = line([1, 2, 4], [13, 16, 22])
    assert (slope, base, residual) == pytest.approx((3, 10, 0), abs=1e-12)
    assert line([1, 2, 4], [13, 16, 30])[2] > 0.01
    assert exponent([2, 4, 8], [20, 80, 320]) == pytest.approx(2)


def test_many_names_of_one_shard_are_a_whole_data_set(tmp_path):
    write(tmp_path / "set", shards=5, per_shard=3)
    dataset = StreamingDataset(local=str(tmp_path / "set"), shuffle=False, batch_size=1)
    assert len(dataset) == 15
    assert dataset[14]["image"] == dataset[0]["image"]
