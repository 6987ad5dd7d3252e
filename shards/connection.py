"""The connection to an object store: endpoint, credentials, time limits, and what its errors mean."""

from __future__ import annotations

import dataclasses
import datetime
import os
import re
from typing import Any

from shards.errors import LrfrError
from shards.messages import install_command

READ_TIMEOUT_S = 60.0  # without a byte
_REQUEST_TRIES = 3  # of one request, in quick succession; TRIES repeat the whole object
_ENDPOINT = re.compile(r"https?://(?:[\w.-]+|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?(?:/[\w./~%-]*)?", re.ASCII)
_STATUS = re.compile(r"status code: (\d{3}) ([A-Za-z -]+)")
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")
_GOOGLE_FILE = re.compile("service account file|pem file")  # absent, or not what it should be
# errors of botocore that waiting does not cure
_LASTING = re.compile(
    r"credential provider: (FileNotFound|Permission|SSOTokenLoad|UnauthorizedSSOToken|PartialCredentials|ConfigParse"
    r"|InvalidConfig)Error"
)
_PASSING = {408, 425, 429}  # client errors that a retry may cure
# what stores say of bytes that arrived changed, late or in part
_DAMAGED = {
    "BadDigest",
    "XAmzContentSHA256Mismatch",
    "IncompleteBody",
    "InvalidDigest",
    "RequestTimeout",
    "InvalidPart",
}
_CREDENTIALS = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or GOOGLE_APPLICATION_CREDENTIALS, and what they may do"


class StoreError(LrfrError):
    """An object store that cannot be used, or an object that is missing or damaged."""


def library_errors(url: str) -> tuple[type[Exception], ...]:
    """The errors of obstore. Raises: StoreError: it is not installed."""
    try:
        from obstore.exceptions import BaseError
    except ImportError:
        remedy = install_command("stores")
        raise StoreError(f"{url}: obstore is not installed; run: {remedy}") from None
    return BaseError, OSError


def connected(url: str) -> Any:
    """Returns obstore's store of a URL. Raises: StoreError: no credentials, or boto3 is not installed."""
    from obstore.store import from_url

    pause = datetime.timedelta(milliseconds=100)
    options: dict[str, Any] = {
        "client_options": {
            "timeout": "6h",  # of a whole response, however large
            "read_timeout": datetime.timedelta(seconds=READ_TIMEOUT_S),
            "connect_timeout": "10s",
        },
        "retry_config": {
            "max_retries": _REQUEST_TRIES - 1,
            "retry_timeout": datetime.timedelta(minutes=3),
            "backoff": {"init_backoff": pause, "max_backoff": 20 * pause, "base": 2},
        },
    }
    if url.startswith("s3:"):
        options |= _s3_options(url)
        endpoint = options["config"].get("endpoint", "")
        options["client_options"]["allow_http"] = endpoint.startswith("http://")
    return from_url(url, **options)


def _s3_options(url: str) -> dict[str, Any]:
    """Credentials, region and endpoint: the environment's, or else those of the user's AWS configuration.

    Raises:
        StoreError: there are no credentials, boto3 is not installed, or a variable would make obstore panic.
    """
    _check_variables()
    environment = {name: os.environ.get(f"AWS_{name}", "") for name in ("ENDPOINT_URL_S3", "ENDPOINT_URL", "REGION")}
    config: dict[str, Any] = {"checksum_algorithm": "sha256"}
    if endpoint := environment["ENDPOINT_URL_S3"] or environment["ENDPOINT_URL"]:
        config["endpoint"] = _checked_endpoint(endpoint)
    if "AWS_ACCESS_KEY_ID" in os.environ or os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true"):
        return {"config": config}
    try:
        from botocore.exceptions import BotoCoreError
        from botocore.session import Session
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        remedy = install_command("stores")
        raise StoreError(f"{url}: boto3 is not installed; run: {remedy}, or set AWS_ACCESS_KEY_ID") from None
    session = Session()
    try:
        credentials = session.get_credentials()
        region = session.get_config_variable("region")
        endpoint = session.get_scoped_config().get("endpoint_url")
    except (BotoCoreError, ValueError) as error:  # files and variables that are wrong
        raise StoreError(f"{url}: no credentials: {' '.join(str(error).split())}; {_CREDENTIALS}") from None
    if credentials is None:
        raise StoreError(
            f"{url}: no credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; or"
            " AWS_SKIP_SIGNATURE=true for a public bucket"
        )
    if not environment["REGION"] and region:
        config["region"] = region
    if "endpoint" not in config and endpoint:
        config["endpoint"] = _checked_endpoint(endpoint)
    return {"config": config, "credential_provider": Boto3CredentialProvider(session)}


def _check_variables() -> None:
    """Raises: StoreError: obstore would panic."""
    for name, value in os.environ.items():
        if name.startswith("AWS_ENDPOINT") and not value:
            raise StoreError(f"{name} is set, but empty; unset it, or set it to http://HOST:PORT or https://HOST")
        if name.startswith("AWS_") and not value.isprintable():  # the value is a secret
            raise StoreError(f"{name} holds a line break or another control character; set it without that")


def _checked_endpoint(endpoint: str) -> str:
    """Returns it. Raises: StoreError: it is no URL with a host, at which obstore would panic."""
    if not _ENDPOINT.fullmatch(endpoint):
        raise StoreError(f"AWS_ENDPOINT_URL {endpoint}: expected http://HOST:PORT or https://HOST")
    return endpoint


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What an error of obstore means.

    Attributes:
        may_pass: a later try may succeed.
        reason: what it says, in a few words.
        remedy: what the user can do.
    """

    may_pass: bool
    reason: str
    remedy: str


def diagnose(error: Exception, url: str) -> Diagnosis:
    """Says what an error of obstore means."""
    text = str(error).partition("\n\nDebug source")[0]
    found, code = _STATUS.search(text), _CODE.search(text)
    status, name = int(found[1]) if found else 0, code[1] if code else ""
    said = " ".join(filter(None, [found[1] if found else "", name or (found[2].strip() if found else "")]))
    if name in _DAMAGED:
        return Diagnosis(True, said, "the path to the store is slow or damages data")
    if lasting := _lasting(error, url, text, status, name, said):
        return Diagnosis(False, *lasting)
    return Diagnosis(True, said or _cause(text), "check the network and the store")


def _lasting(error: Exception, url: str, text: str, status: int, name: str, said: str) -> tuple[str, str] | None:
    """Reason and remedy of an error that waiting does not cure; None if it may."""
    cause = _cause(text)
    if "Generic S3 error: Missing " in text:
        return f"incomplete credentials ({cause})", "set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if "Generic Config error" in text:
        return f"wrong settings ({cause.removeprefix('Generic Config error: ')})", "mend the AWS_ variables"
    if _LASTING.search(text):
        return f"no credentials ({cause.rpartition(' provider: ')[2]})", _CREDENTIALS
    if _GOOGLE_FILE.search(text):
        remedy = "set GOOGLE_APPLICATION_CREDENTIALS to the JSON file of a service account or of a user"
        return f"unusable credentials ({cause.removeprefix('Generic GCS error: ')})", remedy
    if name == "NoSuchBucket":
        bucket = url.partition("://")[2].partition("/")[0]
        return f"there is no bucket {bucket} ({said})", "create it, or check its name and AWS_ENDPOINT_URL"
    if "invalid path" in text:
        return f"holds an object whose name is not a path ({cause})", "delete it, or choose another folder"
    if status == 404 or isinstance(error, FileNotFoundError):
        return "not found", "check the URL"
    if status in (401, 403) or name == "InvalidAccessKeyId":
        return f"refused ({said})", _CREDENTIALS
    if status in (301, 307) or name in ("AuthorizationHeaderMalformed", "PermanentRedirect") or "LOCATION" in text:
        return f"the bucket is in another region ({said})", "set AWS_REGION"
    if status and status < 500 and status not in _PASSING:
        return f"refused ({said})", "check the URL"
    return None


def _cause(text: str) -> str:
    """The last part of a message without status, such as that of a connection that was cut."""
    line = " ".join(text.split())
    return line.rpartition(" - ")[2].removeprefix("Encountered object with invalid path: ")[:200]
