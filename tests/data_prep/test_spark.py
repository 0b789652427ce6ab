import hashlib
import importlib.util
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet
import pytest
from streaming import StreamingDataset
from streaming.base.util import clean_stale_shared_memory

from data_prep import convert, spark
from data_prep.ledger import Ledger
from data_prep.manifest import Row
from data_prep.photograph import Photograph
from maskedclip_composer.data.photograph import Recipe
from maskedclip_composer.errors import UserError
from tests.data_prep.drawing import run, samples, save_retinas, write_csv

needs_spark = pytest.mark.skipif(
    importlib.util.find_spec("pyspark") is None or shutil.which("java") is None,
    reason="pyspark (pip install .[spark]) or Java is not installed",
)
# One core: every worker imports Streaming anew. The second number: attempts at a task.
MASTER = "local[1,2]"


@pytest.fixture
def images(tmp_path):
    """Twelve photographs, of which 1 is cut off and 3 is missing."""
    save_retinas(tmp_path / "images", 12)
    data = (tmp_path / "images" / "1.jpg").read_bytes()
    (tmp_path / "images" / "1.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "images" / "3.jpg").unlink()
    return tmp_path / "images"


@pytest.fixture
def arguments(tmp_path, images):
    rows = [
        {"image": f"{n}.jpg", "text": "line\n  two | é", "label": "1 | 2", "split": "test" if n % 3 else "train"}
        for n in (*range(12), 0)
    ]
    csv_file = write_csv(tmp_path / "t.csv", rows)
    return ("manifest", "--csv", csv_file, "--images", images, "--separator", "|", "--part", "2", "--max-bad", "0.5")


def manifest(out: Path) -> pyarrow.Table:
    return pyarrow.parquet.read_table(out / "manifest.parquet")


@pytest.mark.slow
@needs_spark
def test_equals_the_local_engine_also_when_interrupted(tmp_path, arguments, monkeypatch, capfd):
    ours, local = tmp_path / "spark", tmp_path / "local"
    finish = Ledger.finish
    done = []

    def stop(self, part, outcomes):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(part.name)
        finish(self, part, outcomes)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "finish", stop)
        assert run(*arguments, "--out", ours, "--spark", MASTER) == 130
    assert not ours.exists()
    first, done = done, []
    monkeypatch.setattr(Ledger, "finish", lambda self, part, found: (done.append(part.name), finish(self, part, found)))
    capfd.readouterr()
    assert run(*arguments, "--out", ours, "--spark", MASTER) == 0
    assert "WARN" not in (err := capfd.readouterr().err)
    assert "continuing the unfinished run" in err
    # Those with the photographs that were missing are tried again.
    assert {f"{n:05}" for n in range(6)} - set(first) <= set(done)
    assert len(done) < 6

    assert run(*arguments, "--out", local, "--workers", "1") == 0
    assert manifest(ours).equals(manifest(local))
    for name in ("report.json", "quarantine.csv", "DATA_CARD.md", "contact_sheet.jpg"):
        assert (ours / name).read_bytes() == (local / name).read_bytes(), name
    for split in ("train", "test"):
        assert samples(ours / split) == samples(local / split)
        clean_stale_shared_memory()
        dataset = StreamingDataset(local=str(ours / split), batch_size=1, shuffle=False)
        assert [dataset[n]["source"] for n in range(len(dataset))] == [s["source"] for s in samples(local / split)]
        assert all(path.parent.parent == ours / split for path in (ours / split).rglob("*.mds"))
    assert not (tmp_path / "spark.partial").exists()


@dataclass(frozen=True)
class Objector:
    """Objects to one photograph; kills its process the first time that it is asked about another one."""

    sha256: str
    killed: Path | None

    def objection(self, photograph: Photograph) -> str:
        if self.killed is not None and photograph.sha256 != self.sha256 and not self.killed.exists():
            self.killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "is known" if photograph.sha256 == self.sha256 else ""


@pytest.mark.slow
@needs_spark
def test_killed_worker_is_replaced(tmp_path, images):
    known = hashlib.sha256((images / "0.jpg").read_bytes()).hexdigest()
    killed = tmp_path / "killed"
    rows = [Row(number=n, image=f"{n}.jpg", dataset="d") for n in (0, 2, 4, 5, 6)]

    def outcome(name: str, objector: Objector, master: str | None) -> Path:
        conversion = convert.Conversion(
            out=str(tmp_path / name), recipe=Recipe(size=48), part=3, spark=master, workers=None if master else 1
        )
        assert (
            convert.convert(conversion, images, "unpaired", rows, dataset="d", licence="", objection=objector.objection)
            == 0
        )
        return tmp_path / name

    ours = outcome("spark", Objector(known, killed), MASTER)
    assert killed.exists()
    local = outcome("local", Objector(known, None), None)
    assert manifest(ours).equals(manifest(local))
    assert samples(ours) == samples(local)
    assert [s["source"] for s in samples(ours)] == ["2.jpg", "4.jpg", "5.jpg", "6.jpg"]
    assert (ours / "left_out.csv").read_text() == "row,image,reason\n0,0.jpg,is known\n"


def refuse(photograph: Photograph) -> str:
    raise RuntimeError("the objection fails")


@needs_spark
def test_failure_names_part_and_cause(tmp_path, images):
    conversion = convert.Conversion(out=str(tmp_path / "out"), spark="local[1]")
    with pytest.raises(UserError, match=r"gave up on part 00000: RuntimeError: the objection fails; more is in .*log"):
        convert.convert(
            conversion, images, "unpaired", [Row(number=0, image="0.jpg")], dataset="d", licence="", objection=refuse
        )


@needs_spark
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--spark", "spark://127.0.0.1:1"], "no master answers there"),
        (["--spark", "spark://nonsense"], "no master answers there"),
        (["--spark", "locally"], "--spark locally: Spark did not start: "),
        (["--spark", MASTER, "--workers", "2"], "--workers is for this machine"),
        (["--spark", "yarn", "--out", "s3://bucket/a"], "give --work DIR"),
        (["--spark", MASTER, "--work", "a#b"], "joins no folder whose path has"),
    ],
)
def test_wrong_options(tmp_path, images, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    assert run("manifest", "--images", images, "--out", "out", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_not_installed(tmp_path, images, monkeypatch, capsys):
    arguments = ("manifest", "--images", images, "--out", tmp_path / "out", "--spark", "local[1]")
    monkeypatch.setattr(spark.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(spark.shutil, "which", lambda name: None)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert run(*arguments) == 2
    assert "needs Java 17" in capsys.readouterr().err
    monkeypatch.setattr(spark.importlib.util, "find_spec", lambda name: None)
    assert run(*arguments) == 2
    assert "pip install 'maskedclip-composer[spark]'" in capsys.readouterr().err
