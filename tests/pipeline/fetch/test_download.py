"""A download is complete and right, or has another name; it resumes; every failure is reported."""

from __future__ import annotations

import errno
import resource
import ssl
import urllib.error
import urllib.request

import pytest

from pipeline.fetch import download
from pipeline.fetch.assets import FetchError
from pipeline.fetch.download import ATTEMPTS, Sources, require_file
from pipeline.fetch.http_request import RequestError, _Redirects, is_web_address, request_error
from tests.pipeline.fetch.faulty_server import CONTENT, cut, ranged, remote, stalled, status, whole

NOWHERE = "http://127.0.0.1:9"  # nobody listens there


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def fetched(file, folder, **sources):
    require_file(file, folder / file.name, Sources(**sources))
    assert (folder / file.name).read_bytes() == CONTENT
    assert names(folder) == [file.name]


def failure(file, folder, **sources):
    with pytest.raises(FetchError) as caught:
        require_file(file, folder / file.name, Sources(**sources))
    assert not (folder / file.name).exists()
    return str(caught.value)


def test_a_file_is_downloaded_once(server, file, tmp_path, capsys):
    fetched(file, tmp_path)
    fetched(file, tmp_path)
    assert [path for path, _ in server.requests] == ["/faces.bin"]
    assert "faces.bin: 10/10 kB" in capsys.readouterr().err


def test_a_cut_download_continues_where_it_ended(server, file, tmp_path):
    server.answers = [cut(3000), ranged()]
    fetched(file, tmp_path)
    assert server.requests[1][1]["Range"] == "bytes=3000-"


def test_a_later_command_continues(server, file, tmp_path):
    server.answers = [cut(3000), status(404)]
    message = failure(file, tmp_path)
    assert "3,000 bytes are kept, the same command continues" in message
    assert names(tmp_path) == ["faces.bin.download"]
    server.answers = [ranged()]
    fetched(file, tmp_path)
    assert server.requests[-1][1]["Range"] == "bytes=3000-"


def test_another_mirror_continues(server, file, tmp_path):
    server.answers = [cut(3000), status(404), ranged()]
    fetched(remote(f"{server.url}/a", f"{server.url}/b"), tmp_path)
    path, headers = server.requests[2]
    assert (path, headers["Range"]) == ("/b/faces.bin", "bytes=3000-")


@pytest.mark.parametrize(
    "second",
    [
        ranged(),
        whole(),
        lambda handler: handler.reply(206, CONTENT[7:], Content_Range=f"bytes 7-{len(CONTENT) - 1}/{len(CONTENT)}"),
    ],
    ids=["another version", "ignores Range", "continues elsewhere"],
)
def test_a_server_that_does_not_continue_is_read_from_the_start(server, file, tmp_path, second):
    server.answers = [cut(3000, content=b"x" * len(CONTENT)), second, whole()]
    fetched(file, tmp_path)


def test_a_kept_part_that_does_not_fit_is_dropped(server, file, tmp_path, capsys):
    (tmp_path / "faces.bin.download").write_bytes(b"y" * 5000)
    server.answers = [ranged()]
    fetched(file, tmp_path)
    assert "what was kept does not fit; starting again" in capsys.readouterr().err


@pytest.mark.parametrize("kept", [CONTENT, CONTENT + b"more", b"z" * len(CONTENT)], ids=["all", "more", "other"])
def test_a_kept_part_of_the_full_size_is_checked(server, file, tmp_path, kept):
    (tmp_path / "faces.bin.download").write_bytes(kept)
    server.answers = [ranged()]
    fetched(file, tmp_path)


def test_another_content_never_gets_the_name(server, file, tmp_path):
    server.answers = [whole(b"<html>please log in</html>")]
    message = failure(file, tmp_path)
    assert f"{server.url}/faces.bin: serves another file (26 bytes, SHA-256 " in message
    assert f"SHA-256 {file.sha256}" in message
    assert len(server.requests) == 1
    assert names(tmp_path) == []


def test_a_server_that_breaks_off_and_continues_wrongly_ends(server, file, tmp_path):
    server.answers = [cut(3000, content=b"q" * 9000), ranged(b"q" * 9000)] * 9
    assert "serves another file" in failure(file, tmp_path)
    assert len(server.requests) <= 5


def test_mirrors_are_tried_in_order(server, file, tmp_path):
    server.answers = [status(404), status(403), whole()]
    fetched(file, tmp_path, mirrors=(f"{server.url}/one", f"{server.url}/two/"))
    assert [path for path, _ in server.requests] == ["/one/faces.bin", "/two/faces.bin", "/faces.bin"]


def test_an_error_names_every_mirror(server, tmp_path):
    server.answers = [status(404), status(410)]
    message = failure(remote(server.url, NOWHERE), tmp_path, mirrors=(f"{server.url}/lab",))
    assert f"{server.url}/lab/faces.bin: status 404 Not Found; {server.url}/faces.bin: status 410 Gone" in message
    assert f"{NOWHERE}/faces.bin: no connection (Connection refused)" in message
    assert f"put it at {tmp_path / 'faces.bin'}, or name your own server with --mirror" in message
    assert names(tmp_path) == []


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_requests_to_a_busy_server_are_repeated(server, file, tmp_path, code, capsys):
    server.answers = [status(code), status(code), whole()]
    fetched(file, tmp_path)
    assert capsys.readouterr().err.count(f"status {code}") == 2


def test_a_server_that_stays_busy_is_given_up(server, file, tmp_path):
    server.answers = [status(503)]
    assert "status 503 Service Unavailable" in failure(file, tmp_path)
    assert len(server.requests) == ATTEMPTS


@pytest.mark.parametrize("value", ["0", "Sun, 29 Nov 2020 10:00:00 GMT", "Sun, 29 Nov 2020 10:00:00 -0000", "soon"])
def test_retry_after_is_followed(server, file, tmp_path, value):
    server.answers = [status(429, Retry_After=value), whole()]
    fetched(file, tmp_path)


def test_a_long_retry_after_is_reported(server, file, tmp_path):
    server.answers = [status(429, Retry_After="3600")]
    assert "status 429 Too Many Requests; it asks to wait 3,600 s" in failure(file, tmp_path)
    assert len(server.requests) == 1


def test_waits_are_doubled(server, file, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(download, "FIRST_WAIT_S", 1.0)
    monkeypatch.setattr(download.time, "sleep", waits.append)
    server.answers = [status(503, Retry_After="7"), status(500)]
    failure(file, tmp_path)
    assert waits == [7, 2, 4, 8]


def test_a_stalled_connection_is_given_up_and_resumed(server, file, tmp_path):
    server.answers = [stalled(4000), ranged()]
    fetched(file, tmp_path, timeout_s=0.3)
    assert server.requests[1][1]["Range"] == "bytes=4000-"


def test_a_trickle_is_a_stall(server, file, tmp_path):
    def trickle(handler):
        cut(10)(handler)
        while not handler.server.released.wait(0.02):
            try:
                handler.wfile.write(b"\0")
            except OSError:
                return

    server.answers = [trickle, whole()]
    fetched(file, tmp_path, timeout_s=0.3)


def test_a_server_that_never_stops_is_stopped(server, file, tmp_path):
    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        while not handler.server.released.is_set():
            try:
                handler.wfile.write(CONTENT)
            except OSError:
                return

    server.answers = [endless]
    assert "sends more than twice the 10,240 bytes of the file" in failure(file, tmp_path)
    assert (tmp_path / "faces.bin.download").stat().st_size <= 2 * len(CONTENT)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda handler: handler.wfile.write(b"SSH-2.0-x\r\n"), "the answer is not HTTP"),
        (lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\nA: " + b"b" * 99999 + b"\r\n\r\n"), "not HTTP"),
        (lambda handler: None, "the connection broke"),
        (status(204), "status 204 No Content"),
    ],
    ids=["ssh", "long header", "nothing", "204"],
)
def test_unexpected_responses_are_reported(server, file, tmp_path, answer, reason):
    server.answers = [answer]
    assert reason in failure(file, tmp_path)


def test_a_broken_chunk_is_resumed(server, file, tmp_path):
    def chunked(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"3e8\r\n" + CONTENT[:1000] + b"\r\n3e8\r\n" + CONTENT[1000:1100])

    server.answers = [chunked, ranged()]
    fetched(file, tmp_path)
    assert "Range" in server.requests[1][1]


def test_redirects_are_followed_to_another_host_with_the_range(server, file, tmp_path):
    other = f"{server.url.replace('127.0.0.1', 'localhost')}/moved"
    server.answers = [cut(3000), status(302, Location=other), ranged()]
    fetched(file, tmp_path)
    path, headers = server.requests[2]
    assert (path, headers["Range"]) == ("/moved", "bytes=3000-")
    assert headers["Host"].startswith("localhost")


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x"])
def test_redirects_out_of_the_web_are_refused(server, file, tmp_path, target):
    server.answers = [status(302, Location=target)]
    assert f"redirects to {target}" in failure(file, tmp_path)


def test_a_loop_of_redirects_ends(server, file, tmp_path):
    server.answers = [status(302, Location=f"{server.url}/faces.bin")]
    assert "redirects without end" in failure(file, tmp_path)
    assert len(server.requests) < 20


def test_no_server_is_not_tried_again(tmp_path):
    message = failure(remote(NOWHERE, "http://name.invalid"), tmp_path)
    assert "127.0.0.1:9/faces.bin: no connection (Connection refused)" in message
    assert "name.invalid/faces.bin: no connection (" in message


def test_a_network_that_goes_away_is_waited_for(server, file, tmp_path, monkeypatch):
    answers = iter([cut(3000), None, ranged()])
    real = download.open_url

    def open_url(*words):
        answer = next(answers)
        if answer is None:
            raise download.RequestError("no connection (x)", retry=True, offline=True)
        server.answers = [answer]
        return real(*words)

    monkeypatch.setattr(download, "open_url", open_url)
    fetched(file, tmp_path)


def test_the_proxy_of_the_environment_is_used_and_named(server, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url.replace("//", "//user:secret@"))
    fetched(remote("http://faces.invalid"), tmp_path)
    path, headers = server.requests[0]
    assert path == "http://faces.invalid/faces.bin"
    assert "Proxy-Authorization" in headers
    server.answers = [status(407)]
    message = failure(remote("http://faces.invalid", name="more.bin"), tmp_path)
    assert "status 407 Proxy Authentication Required, through the proxy 127.0.0.1:" in message
    assert "secret" not in message


def test_https_goes_through_the_proxy_by_a_tunnel(server, tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", server.url)
    message = failure(remote("https://faces.invalid"), tmp_path)
    assert f"the proxy {server.url.removeprefix('http://')} refuses: Tunnel connection failed: 501" in message


def test_a_socks_proxy_is_refused(server, file, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "socks5h://127.0.0.1:1080")
    message = failure(file, tmp_path)
    assert "a proxy of type socks5h is not supported; expected http, through the proxy 127.0.0.1:1080" in message
    assert server.requests == []


def test_no_proxy_is_obeyed(server, file, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", NOWHERE)
    assert "through the proxy 127.0.0.1:9" in failure(file, tmp_path)
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    fetched(file, tmp_path)


def test_a_file_of_the_user_is_not_replaced(server, file, tmp_path):
    (tmp_path / file.name).write_text("mine")
    with pytest.raises(FetchError, match=r"faces\.bin: not the published file \(SHA-256 .*move it away"):
        require_file(file, tmp_path / file.name, Sources())
    assert (tmp_path / file.name).read_text() == "mine"
    assert server.requests == []


def test_a_full_disk_keeps_what_arrived(server, tmp_path):
    content = CONTENT * 20
    file = remote(server.url, content=content)
    server.answers = [whole(content)]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError) as caught:  # noqa: PT011
            require_file(file, tmp_path / file.name, Sources())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(tmp_path / "faces.bin.download"))
    assert (tmp_path / "faces.bin.download").stat().st_size == 100_000
    server.answers = [ranged(content)]
    require_file(file, tmp_path / file.name, Sources())
    assert (tmp_path / file.name).read_bytes() == content
    assert server.requests[1][1]["Range"] == "bytes=100000-"


def test_an_interruption_keeps_what_arrived(server, file, tmp_path, monkeypatch):
    real = download._blocks

    def blocks(*words):
        yield next(real(*words))[:2000]
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "_blocks", blocks)
    with pytest.raises(KeyboardInterrupt):
        require_file(file, tmp_path / file.name, Sources())
    monkeypatch.undo()
    server.answers = [ranged()]
    fetched(file, tmp_path)
    assert server.requests[1][1]["Range"] == "bytes=2000-"


def test_a_link_in_place_of_the_part_is_not_followed(server, file, tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "faces.bin.download").symlink_to("precious")
    with pytest.raises(OSError, match=r"faces\.bin\.download"):
        require_file(file, tmp_path / file.name, Sources())
    assert (tmp_path / "precious").read_text() == "mine"


def test_an_untrusted_certificate_is_reported(server, tmp_path):
    bad = ssl.SSLCertVerificationError(1, "x")
    bad.verify_message = "self-signed certificate"
    error = request_error(urllib.error.URLError(bad), "https://x")
    assert not error.retry
    assert str(error).startswith("its certificate is not trusted (self-signed certificate); install ca-certificates")


def test_a_server_without_tls_is_reported(server, tmp_path):
    assert "the connection broke" in failure(remote(server.url.replace("http:", "https:")), tmp_path)


@pytest.mark.parametrize("target", ["http://x/y", "file:///x"])
def test_a_redirect_never_leaves_https(target):
    with pytest.raises(RequestError, match=f"redirects to {target}"):
        _Redirects().redirect_request(urllib.request.Request("https://x/y"), None, 302, "", {}, target)


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "ftp://x/y", "file:///etc/passwd", "http://", "http:///x", "https://user:word@x/", "http://x/?a=b"),
        *("http://x y/", "http://x:99999/", "http://[::1/", "http://x/\n"),
    ],
)
def test_what_is_no_address_of_a_folder(text):
    assert not is_web_address(text)


@pytest.mark.parametrize("text", ["http://x", "https://faces.example:8443/a/b/", "http://[::1]:80/x", "HTTP://X"])
def test_what_is_an_address_of_a_folder(text):
    assert is_web_address(text)
