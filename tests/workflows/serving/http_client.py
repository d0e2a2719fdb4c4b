"""Sends requests to a server with the standard library."""

import http.client
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

BOUNDARY = "part-of-a-form"


@dataclass(frozen=True)
class Response:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return self.json["error"]["code"]


@dataclass(frozen=True)
class Client:
    url: str

    def send(
        self,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        kind: str = "image/png",
        *,
        headers: Mapping[str, str] | None = None,
        method: str = "",
        **options: Any,
    ) -> Response:
        """Sends one request on a connection of its own; `options` become the query."""
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
        query = f"?{urlencode(options, doseq=True)}" if options else ""
        sent = {**({} if body is None else {"Content-Type": kind}), **(headers or {})}
        connection.request(method or ("GET" if body is None else "POST"), f"/{path}{query}", body, sent)
        response = connection.getresponse()
        received = {name.lower(): value for name, value in response.getheaders()}
        answer = Response(response.status, received, response.read())
        connection.close()
        return answer

    def send_form(self, path: str, files: Iterable[tuple[str, bytes]], **options: Any) -> Response:
        return self.send(path, encode_form(files), f"multipart/form-data; boundary={BOUNDARY}", **options)

    def metric(self, name: str, **labels: str) -> float:
        """Returns a value of the metrics; 0 without one."""
        wanted = name + ("{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}" if labels else "")
        lines = self.send("metrics").body.decode().splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{wanted} ")), 0.0)


def encode_form(files: Iterable[tuple[str, bytes]], field: str = "image") -> bytes:
    parts = []
    for name, data in files:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
        parts += [head.encode(), data, b"\r\n"]
    return b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()])
