"""An S3 server on loopback, for tests of what is read from and written to an object store."""

import itertools
import os

import pytest

_numbers = itertools.count()
_clients = {}
"""Those that were made for our server: they take long to make, and keep the address."""
_NOT_OURS = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_PROFILE")


@pytest.fixture(scope="session")
def s3_endpoint():
    """The address of a server that lives as long as the tests do."""
    server_module = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_endpoint, monkeypatch, tmp_path_factory):
    """The name of a new bucket that this process and its children reach as `s3://NAME`."""
    nowhere = str(tmp_path_factory.getbasetemp() / "no-aws-config")
    for name in _NOT_OURS:
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": nowhere,
        "AWS_SHARED_CREDENTIALS_FILE": nowhere,
        "NO_PROXY": "127.0.0.1," + os.environ.get("NO_PROXY", ""),
    }.items():
        monkeypatch.setenv(name, value)
    import boto3
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem._cache.update(_clients)
    bucket = f"bucket-{os.getpid()}-{next(_numbers)}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    yield bucket
    if os.environ.get("AWS_ENDPOINT_URL") == s3_endpoint:  # else the test led them elsewhere
        _clients.update(s3fs.S3FileSystem._cache)
    s3fs.S3FileSystem.clear_instance_cache()
