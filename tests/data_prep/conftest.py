import urllib.request

import pytest


@pytest.fixture
def bucket(monkeypatch):
    """The address of an empty bucket of an S3 server on this machine."""
    moto_server = pytest.importorskip("moto.server", reason="moto[server] is not installed", exc_type=ImportError)
    import boto3

    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("S3_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # nothing is asked beyond this machine
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
    reset = urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset).close()  # its buckets are the process's
    client.create_bucket(Bucket="shards")
    yield client
    server.stop()
