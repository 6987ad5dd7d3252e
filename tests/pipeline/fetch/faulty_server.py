"""A web server on this machine with faults that a test chooses."""

from __future__ import annotations

import hashlib
import http.server
import socketserver
import threading

from pipeline.fetch.assets import RemoteFile

CONTENT = bytes(range(256)) * 40


class Server(socketserver.ThreadingTCPServer):  # HTTPServer would look up this machine's name, which takes time
    """Answers each request by the next of ``answers``, the last one for ever; remembers the requests' headers."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = [whole()]
        self.requests = []
        self.released = threading.Event()  # ends answers that hang
        self.handle_error = lambda *words: None  # clients that hang up
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # headers and body in one packet: the second would wait for the first

    def do_GET(self):
        server = self.server
        server.requests.append((self.path, dict(self.headers)))
        answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
        answer(self)
        self.close_connection = True

    def log_message(self, *words):
        pass

    def reply(self, status, body=b"", stated=None, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if stated is None else stated))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


def whole(content=CONTENT, **headers):
    """A server that does not know Range."""
    return lambda handler: handler.reply(200, content, **headers)


def ranged(content=CONTENT):
    """A server that resumes."""

    def answer(handler):
        asked = handler.headers.get("Range")
        if asked is None:
            handler.reply(200, content)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            handler.reply(416)
            return
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        handler.reply(206, content[start:], Content_Range=span)

    return answer


def cut(at, content=CONTENT, **headers):
    """Sends ``at`` bytes of more, then closes the connection."""
    return lambda handler: handler.reply(200, content[:at], stated=len(content), **headers)


def status(code, **headers):
    return lambda handler: handler.reply(code, b"sorry", **headers)


def stalled(at):
    """Sends ``at`` bytes, then nothing, and keeps the connection."""

    def answer(handler):
        cut(at)(handler)
        handler.server.released.wait(60)

    return answer


def remote(*bases, content=CONTENT, name="faces.bin"):
    return RemoteFile(
        name=name,
        urls=tuple(f"{base}/{name}" for base in bases),
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
    )
