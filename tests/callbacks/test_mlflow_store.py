import subprocess
import sys
from pathlib import Path

from maskedclip_composer.callbacks.mlflow_store import find_run, open_client, remember_run, remembered_run


def test_a_run_is_remembered_without_credentials(tmp_path: Path):
    path = tmp_path / "tiny" / "mlflow_run.json"
    assert remembered_run(path) is None
    remember_run(path, "abc", "http://me:hunter2@host", "retina")
    assert remembered_run(path) == "abc"
    assert "hunter2" not in path.read_text()
    assert [file.name for file in path.parent.iterdir()] == ["mlflow_run.json"]


def test_a_damaged_file_and_one_that_cannot_be_written_are_warned_of(tmp_path: Path, caplog):
    path = tmp_path / "mlflow_run.json"
    for text in ("{", "[]", "{}"):
        path.write_text(text)
        assert remembered_run(path) is None
    assert caplog.text.count("is damaged") == 3
    remember_run(path / "below_a_file", "abc", "http://host", "retina")
    assert "cannot be written" in caplog.text


def test_absent_and_deleted_runs_are_not_found(tmp_path: Path):
    client = open_client(f"sqlite:///{tmp_path / 'mlflow.db'}")
    run_id = client.create_run("0").info.run_id
    found = find_run(client, run_id)
    assert found is not None
    assert found.info.run_id == run_id
    client.delete_run(run_id)
    assert find_run(client, run_id) is None
    assert find_run(client, "0" * 32) is None
    assert find_run(open_client(str(tmp_path / "files")), "no id") is None


def test_two_processes_may_create_the_same_database(tmp_path: Path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    code = f"from maskedclip_composer.callbacks.mlflow_store import open_client; open_client({uri!r}).create_run('0')"
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert len(open_client(uri).search_runs(["0"])) == 2
