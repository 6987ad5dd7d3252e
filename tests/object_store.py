"""A server of the S3 protocol, moto's, in this process: it counts requests, and fails on demand as networks do."""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import io
import logging
import socket
import threading
import time
import urllib.request

import boto3
from moto.core import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import make_server

BAD_DIGEST = b"<Error><Code>BadDigest</Code><Message>The SHA-256 you specified did not match.</Message></Error>"

AMAZON_KEY = "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"


@dataclasses.dataclass
class Fault:
    """What happens to the next ``times`` requests of ``method`` whose path or query contains ``match``.

    Attributes:
        kind: a status such as ``503``; ``slow``; ``cut``: the connection ends in the middle; ``flip``: a bit changes;
            ``hold``: the answer waits until ``faults`` has none of this kind.
    """

    kind: str
    method: str = ""
    match: str = ""
    times: int = 1


class ObjectStore:
    """Runs until ``close``.

    Attributes:
        url: the endpoint.
        requests: method, path and query of every request.
        faults: what is to go wrong.
        checks: the server refuses content that does not match its SHA-256, as S3 does and moto does not.
        is_google: clients come with a key of Google's, if any.
    """

    def __init__(self, host="127.0.0.1"):
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._app = DomainDispatcherApplication(create_backend_app)
        self.requests, self.faults, self.checks, self.is_google = [], [], True, False
        self._server = make_server(host, 0, self._answer, threaded=True)
        self.url = f"http://{host}:{self._server.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def reset(self):
        """Empties the bucket ``faces``, the only one."""
        self.faults.clear()
        for method, path in (("POST", "moto-api/reset"), ("PUT", "faces")):
            urllib.request.urlopen(urllib.request.Request(f"{self.url}/{path}", method=method)).close()
        self.requests.clear()
        self.checks, self.is_google = True, False

    @functools.cached_property
    def client(self):
        """Amazon's client, which sees what is really there."""
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
        return boto3.client("s3", endpoint_url=self.url, **keys)

    def content(self, prefix):
        """Content by name of all objects below a prefix."""
        found = self.client.list_objects_v2(Bucket="faces", Prefix=f"{prefix}/").get("Contents", ())
        return {one["Key"].removeprefix(f"{prefix}/"): self.get(one["Key"]) for one in found}

    def fill(self, prefix, count):
        """Makes empty objects, without requests."""
        for number in range(count):
            s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object("faces", f"{prefix}/{number:06d}", b"")

    def copy(self, prefix, folder):
        """Stores the files of a folder, without requests."""
        for path in folder.iterdir():
            s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object("faces", f"{prefix}/{path.name}", path.read_bytes())

    def get(self, key):
        return self.client.get_object(Bucket="faces", Key=key)["Body"].read()

    def put(self, key, data):
        self.client.put_object(Bucket="faces", Key=key, Body=data)

    def delete(self, key):
        self.client.delete_object(Bucket="faces", Key=key)

    def count(self, method, match=""):
        return sum(one[0] == method and match in one[1] + "?" + one[2] for one in self.requests)

    def _fault(self, request):
        for fault in self.faults:
            if fault.times and fault.method in ("", request[0]) and fault.match in request[1] + "?" + request[2]:
                fault.times -= 1
                return fault.kind
        return ""

    def _answer(self, environ, start):
        request = (environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"])
        self.requests.append(request)
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        kind = self._fault(request)
        if kind.isdecimal():
            start(f"{kind} trouble", [("Content-Length", "0")])
            return [b""]
        if kind == "slow":
            time.sleep(3)
        while kind == "hold" and any(fault.kind == "hold" for fault in self.faults):
            time.sleep(0.02)
        if request[0] == "PUT" and kind == "cut":
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return []
        if request[0] == "PUT" and kind == "flip":
            body = _flipped(body)
        if self.is_google:
            environ["HTTP_AUTHORIZATION"] = AMAZON_KEY
        stated = environ.get("HTTP_X_AMZ_CHECKSUM_SHA256")
        if self.checks and stated and base64.b64decode(stated) != hashlib.sha256(body).digest():
            start("400 Bad Request", [("Content-Length", str(len(BAD_DIGEST)))])
            return [BAD_DIGEST]
        environ["wsgi.input"] = io.BytesIO(body)
        if request[0] == "GET" and kind in ("cut", "flip"):
            content = b"".join(self._app(environ, start))
            return [_flipped(content) if kind == "flip" else content[: len(content) // 2]]
        return self._app(environ, start)


def _flipped(data):
    return bytes([data[0] ^ 0x10]) + data[1:]
