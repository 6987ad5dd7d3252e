"""HTTP requests: proxies, redirects, certificates, and what each failure means."""

from __future__ import annotations

import datetime
import email.utils
import errno
import functools
import http.client
import socket
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any, NoReturn

SCHEMES = ("http", "https")
USER_AGENT = "lrfr-fetch"
_BUSY = {408, 425, 429, 500, 502, 503, 504}  # statuses that may pass
_NO_ROUTE = {errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL}


class RequestError(Exception):
    """A request that failed.

    Attributes:
        retry: True if the same request may succeed soon.
        wait_s: how long the server asks to wait; None if it does not say.
        offline: True if no server was reached.
        status: of the response; None if there is none.
    """

    def __init__(
        self,
        reason: str,
        *,
        retry: bool,
        wait_s: float | None = None,
        offline: bool = False,
        status: int | None = None,
    ) -> None:
        super().__init__(reason)
        self.retry, self.wait_s, self.offline, self.status = retry, wait_s, offline, status


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to HTTP and HTTPS addresses, but never from HTTPS to HTTP."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urllib.parse.urlsplit(newurl).scheme not in (("https",) if req.type == "https" else SCHEMES):
            raise RequestError(f"redirects to {newurl}", retry=False)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def is_web_address(text: str) -> bool:
    """True for a URL of HTTP or HTTPS with a host, and without a user, a query or white space."""
    try:
        parts = urllib.parse.urlsplit(text)
        plain = not (parts.username or parts.query or parts.fragment) and text.isprintable() and " " not in text
        return parts.scheme in SCHEMES and bool(parts.hostname) and parts.port != 0 and plain
    except ValueError:  # no port, or no IPv6 address
        return False


def open_url(url: str, headers: Mapping[str, str], timeout_s: float) -> http.client.HTTPResponse:
    """Sends a GET request; the environment's ``http_proxy``, ``https_proxy`` and ``no_proxy`` apply.

    Args:
        timeout_s: of the connection, and of each later read.

    Returns:
        The response, with status 200 or 206.

    Raises:
        RequestError: any other outcome.
    """
    opener = urllib.request.OpenerDirector()  # unlike build_opener's, it opens neither files nor FTP
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=_tls()),
        _Redirects(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    kind, is_url, _ = _proxy(url).partition("://")
    if is_url and kind not in SCHEMES:  # urllib would speak HTTP with it
        raise RequestError(f"a proxy of type {kind} is not supported; expected http", retry=False)
    try:
        request = urllib.request.Request(url, headers={"User-Agent": USER_AGENT, **headers})
        response: http.client.HTTPResponse = opener.open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        _raise_status(error)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise request_error(error, url) from None
    if response.status not in (200, 206):
        with response:
            raise RequestError(f"status {response.status} {response.reason}", retry=False)
    return response


@functools.cache
def _tls() -> ssl.SSLContext:
    """The default settings: certificates and host names are verified. Reading the certificates takes time."""
    return ssl.create_default_context()


def request_error(error: Exception, url: str) -> RequestError:
    """What an exception of a request to ``url``, or of reading its response, means."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        remedy = "install ca-certificates, or name your organisation's certificates with SSL_CERT_FILE"
        return RequestError(f"its certificate is not trusted ({reason.verify_message}); {remedy}", retry=False)
    if isinstance(reason, TimeoutError):
        connecting = isinstance(error, urllib.error.URLError)
        text = "no connection within the time limit" if connecting else "no data within the time limit"
        return RequestError(text, retry=True, offline=connecting)
    if isinstance(reason, socket.gaierror):
        return RequestError(f"no connection ({reason.strerror})", retry=True, offline=True)
    if isinstance(reason, OSError) and reason.errno in _NO_ROUTE:
        return RequestError(f"no connection ({reason.strerror})", retry=True, offline=True)
    if isinstance(reason, ConnectionError | http.client.IncompleteRead | ssl.SSLError):
        return RequestError("the connection broke", retry=True)
    if isinstance(reason, http.client.BadStatusLine | http.client.LineTooLong):
        return RequestError("the answer is not HTTP", retry=False)
    text = str(reason) or type(reason).__name__
    if text.startswith("Tunnel connection failed"):
        return RequestError(f"the proxy {proxy_of(url)} refuses: {text}", retry=False)
    return RequestError(text, retry=isinstance(reason, OSError) and reason.errno is not None)


def proxy_of(url: str) -> str:
    """The proxy for ``url``, host and port without user and password; empty if there is none."""
    return _proxy(url).rpartition("@")[2].rpartition("//")[2].rstrip("/")


def _proxy(url: str) -> str:
    """The proxy for ``url`` as the environment names it; empty if there is none."""
    parts = urllib.parse.urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme, "")
    return "" if parts.hostname and urllib.request.proxy_bypass(parts.netloc) else proxy


def _raise_status(error: urllib.error.HTTPError) -> NoReturn:
    """Raises: RequestError: what a status other than 2xx means. The response is closed."""
    with error:
        if 300 <= error.code < 400:
            scheme = urllib.parse.urlsplit(error.url or "").scheme
            where = f"to {error.url}" if scheme not in SCHEMES else "without end"
            raise RequestError(f"redirects {where}", retry=False)
        raise RequestError(
            f"status {error.code} {http.client.responses.get(error.code, '')}".rstrip(),
            retry=error.code in _BUSY,
            wait_s=_seconds(error.headers.get("Retry-After", "")),
            status=error.code,
        )


def _seconds(text: str) -> float | None:
    """The seconds of a ``Retry-After`` header, which holds a number or a date."""
    if text.strip().isdecimal():
        return float(text)
    try:
        date = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(
        (date.replace(tzinfo=date.tzinfo or datetime.UTC) - datetime.datetime.now(datetime.UTC)).total_seconds(), 0.0
    )
