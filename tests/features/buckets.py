"""Starts servers of S3 and GCS on loopback."""

import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
import pytest
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer

from tests.features.faults import Faults, faulty

BUCKET = "pictures"
_SECONDS = 20


@contextmanager
def _atomic_puts() -> Iterator[None]:
    """Makes conditional puts atomic, as S3 does; moto looks for the object and stores it in two steps."""
    lock, put = threading.Lock(), S3Response.put_object

    def put_alone(self: S3Response) -> Any:
        with lock:
            return put(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(S3Response, "put_object", put_alone)
        yield


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """Starts a server of S3 with an empty bucket; yields the environment variables for clients."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "reader",
        "AWS_SECRET_ACCESS_KEY": "anything",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        _client(environment).create_bucket(Bucket=BUCKET)
        with _atomic_puts():
            yield environment
    finally:
        server.stop()


@contextmanager
def bucket(scheme: str, cache: Path) -> Iterator[Faults]:
    """Starts a server of S3 (`s3`) or GCS (`gs`) with an empty bucket behind a proxy; yields the proxy's faults.

    The environment variables of this process and its children name the proxy, and the local cache in `cache`.
    """
    with (
        {"s3": s3_server, "gs": gs_server}[scheme]() as direct,
        faulty(direct) as (environment, faults),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("CAPT_CACHE_DIR", str(cache))
        for name, value in environment.items():
            patch.setenv(name, value)
        yield faults


def put_s3(environment: dict[str, str], key: str, data: bytes) -> str:
    """Puts an object; returns its URI."""
    _client(environment).put_object(Bucket=BUCKET, Key=key, Body=data)
    return f"s3://{BUCKET}/{key}"


@contextmanager
def gs_server() -> Iterator[dict[str, str]]:
    """Starts a server of GCS with an empty bucket in another process; yields the environment variables for clients."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("gcp-storage-emulator")
    command = [program, "start", "--host=127.0.0.1", f"--port={port}", "--in-memory", f"--default-bucket={BUCKET}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await(port)
        yield {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"}
    finally:
        process.terminate()
        process.wait()


def put_gs(environment: dict[str, str], key: str, data: bytes) -> str:
    """Puts an object; returns its URI."""
    address = f"{environment['STORAGE_EMULATOR_HOST']}/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name="
    request = urllib.request.Request(f"{address}{quote(key, safe='')}", data, {"Content-Type": "image/jpeg"})
    with urllib.request.urlopen(request, timeout=_SECONDS):
        return f"gs://{BUCKET}/{key}"


def _client(environment: dict[str, str]) -> "boto3.client":
    return boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )


def _await(port: int) -> None:
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError("the server did not start")
