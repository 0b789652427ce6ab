import itertools
import os
import socket
import time

import pytest

from data_prep import remote
from maskedclip_composer.errors import UserError
from tests.data_prep.drawing import run, samples, save_retinas, tree, write_csv
from tests.data_prep.proxy import proxy

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def images(tmp_path):
    save_retinas(tmp_path / "images", 6)
    return tmp_path / "images"


@pytest.fixture
def faulty(bucket, monkeypatch):
    """Put a proxy with a fault before the S3 server; give its endpoint to the client."""
    monkeypatch.setattr(remote, "SILENCE", 1.0)
    monkeypatch.setattr(remote, "ATTEMPTS", 2)
    opened = []

    def put(fault):
        context = proxy(os.environ["S3_ENDPOINT_URL"], fault)
        opened.append(context)
        monkeypatch.setenv("S3_ENDPOINT_URL", context.__enter__())

    yield put
    for context in opened:
        context.__exit__(None, None, None)


def stored(bucket, prefix):
    found = bucket.list_objects_v2(Bucket="shards", Prefix=prefix).get("Contents", [])
    keys = [entry["Key"] for entry in found]
    return {key.removeprefix(prefix): bucket.get_object(Bucket="shards", Key=key)["Body"].read() for key in keys}


def test_an_upload_that_died_is_continued(tmp_path, images, bucket, faulty, capsys):
    arguments = ("manifest", "--images", images, "--part", "2", "--workers", "1")
    there = (*arguments, "--work", tmp_path / "work", "--out", "s3://shards/a")
    dead = itertools.count()
    broken = [True]
    faulty(lambda method, path: "drop" if broken[0] and method == "PUT" and next(dead) >= 2 else "")
    assert run(*there) == 2
    assert "only the upload is repeated" in capsys.readouterr().err
    left = stored(bucket, "a/")
    assert left
    assert "index.json" not in left
    broken[0] = False

    assert run(*there[:-4], "--work", tmp_path / "other", "--out", "s3://shards/a") == 2
    assert "holds objects already" in capsys.readouterr().err  # they are those of another run
    assert run(*there) == 0
    assert run(*arguments, "--out", tmp_path / "local") == 0
    assert stored(bucket, "a/") == tree(tmp_path / "local")
    assert run("check", "s3://shards/a", "--decode") == 0
    assert "nothing wrong" in capsys.readouterr().out


def test_foreign_objects_and_other_options_stop_a_continued_upload(tmp_path, images, bucket, faulty, capsys):
    arguments = (
        "manifest",
        "--images",
        images,
        "--work",
        tmp_path / "work",
        "--workers",
        "1",
        "--out",
        "s3://shards/a",
    )
    broken = [True]
    faulty(lambda method, path: 500 if broken[0] and method == "PUT" and path.endswith("index.json") else "")
    assert run(*arguments) == 2
    broken[0] = False
    bucket.put_object(Bucket="shards", Key="a/mine.txt", Body=b"x")
    assert run(*arguments) == 2
    assert "mine.txt" in capsys.readouterr().err
    bucket.delete_object(Bucket="shards", Key="a/mine.txt")
    assert run(*arguments, "--size", "40") == 2
    assert "unfinished upload of other rows or options" in capsys.readouterr().err
    assert run(*arguments) == 2
    assert "holds objects already" in capsys.readouterr().err


def test_a_burst_of_server_errors_is_outlived(tmp_path, images, bucket, faulty):
    counts = {}

    def first_fails(method, path):
        counts[method, path] = counts.get((method, path), 0) + 1
        return 503 if method == "PUT" and counts[method, path] == 1 else ""

    faulty(first_fails)
    assert run("manifest", "--images", images, "--workers", "1", "--out", "s3://shards/a") == 0
    assert "index.json" in stored(bucket, "a/")


@pytest.mark.parametrize(
    ("fault", "message"), [("stall", "cannot be reached"), (403, "no permission"), (404, "no such bucket")]
)
def test_a_store_that_refuses_is_explained_in_bounded_time(tmp_path, images, faulty, fault, message, capsys):
    faulty(lambda method, path: fault)
    start = time.monotonic()
    assert run("manifest", "--images", images, "--out", "s3://shards/a") == 2
    assert message in capsys.readouterr().err
    assert time.monotonic() - start < 15


def test_no_endpoint_and_no_credentials(images, faulty, bucket, monkeypatch, tmp_path, capsys):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    assert run("manifest", "--images", images, "--out", "s3://shards/a") == 2
    assert "no credentials were found; set AWS_ACCESS_KEY_ID" in capsys.readouterr().err
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("S3_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
        assert run("manifest", "--images", images, "--out", "s3://shards/a") == 2
    assert "cannot be reached" in capsys.readouterr().err


def put_images(bucket, images):
    for path in images.iterdir():
        bucket.put_object(Bucket="shards", Key=f"in/sub/{path.name}", Body=path.read_bytes())
    bucket.put_object(Bucket="shards", Key="in/._0.jpg", Body=b"")
    bucket.put_object(Bucket="shards", Key="in/.cache/0.jpg", Body=b"")


def test_photographs_of_a_bucket(tmp_path, images, bucket, monkeypatch):
    put_images(bucket, images)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    options = ("--dataset", "TOY", "--workers", "1")
    assert run("manifest", "--images", "s3://shards/in", "--out", tmp_path / "out", *options) == 0
    (tmp_path / "near").mkdir()
    images.rename(tmp_path / "near" / "sub")
    assert run("manifest", "--images", tmp_path / "near", "--out", tmp_path / "local", *options) == 0
    assert samples(tmp_path / "out") == samples(tmp_path / "local")
    assert not list((tmp_path / "tmp").iterdir())


def test_a_table_of_a_bucket_names_what_is_there_and_what_is_not(tmp_path, images, bucket, capsys):
    put_images(bucket, images)
    table = write_csv(tmp_path / "t.csv", [{"image": f"sub/{name}.jpg"} for name in ("0", "none", "1")])
    bucket.put_object(Bucket="shards", Key="in/t.csv", Body=table.read_bytes())
    arguments = ("--csv", "s3://shards/in/t.csv", "--workers", "1", "--max-bad", "1")
    assert run("manifest", *arguments, "--out", tmp_path / "out") == 0
    assert [sample["source"] for sample in samples(tmp_path / "out")] == ["sub/0.jpg", "sub/1.jpg"]
    assert "row 3: sub/none.jpg: no such file" in capsys.readouterr().out
    assert run("manifest", "--csv", "s3://shards/in/u.csv", "--out", tmp_path / "o") == 2
    assert "s3://shards/in/u.csv: no such file" in capsys.readouterr().err


def test_a_store_that_fails_midway_quarantines_nothing(tmp_path, images, bucket, faulty, capsys):
    put_images(bucket, images)
    broken = [True]
    faulty(lambda method, path: 500 if broken[0] and path.startswith("/shards/in/sub/4") else "")
    arguments = ("manifest", "--images", "s3://shards/in", "--out", tmp_path / "out", "--part", "2", "--workers", "1")
    assert run(*arguments) == 2
    assert "finished parts are kept" in capsys.readouterr().err
    broken[0] = False
    assert run(*arguments) == 0
    assert len(samples(tmp_path / "out")) == 6


def test_images_may_not_leave_the_prefix():
    assert remote.key_below("s3://b/p", "x\\y.jpg") == "x/y.jpg"
    assert remote.key_below("s3://b/p", "s3://b/p/x.jpg") == "x.jpg"
    for image in ("../x.jpg", "/x.jpg", "s3://b/q/x.jpg", "a/../../x.jpg", "."):
        with pytest.raises(UserError, match="outside the image root"):
            remote.key_below("s3://b/p", image)


def test_official_layouts_are_not_read_from_a_store(tmp_path, capsys):
    assert run("prepare", "idrid", "--root", "s3://shards/in", "--out", tmp_path / "out") == 2
    assert "aws s3 sync" in capsys.readouterr().err
