"""A proxy on loopback that loses, cuts and refuses some of the requests to a server behind it."""

import http.client
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

STALL_S = 3.0
"""How long a request that stalls is kept waiting, before it is given up."""


class FlakyProxy(ThreadingHTTPServer):
    """Stands in front of the store; `fault(method, path)` says what becomes of a request."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, target, fault):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target, self.fault = urlsplit(target).netloc, fault
        self.faults = []
        self.lock = threading.Lock()
        self.address = f"http://127.0.0.1:{self.server_address[1]}"

    def choose(self, method, path):
        with self.lock:
            fault = self.fault(method, path)
            if fault:
                self.faults.append((fault, method, path))
            return fault

    def handle_error(self, *_):
        pass  # clients hang up; so do we


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.choose(self.command, self.path)
        if fault == "busy":
            self._answer(503, [], b"<Error><Code>SlowDown</Code></Error>")
            return
        if fault == "denied":
            self._answer(403, [], b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>")
            return
        if fault in ("reset", "stall"):
            time.sleep(STALL_S if fault == "stall" else 0)
            self._hang_up()
            return
        if fault == "truncate":
            body = body[: len(body) // 2]
        status, headers, answer = self._forward(body)
        if fault == "lost":
            self._hang_up()
        elif fault == "cut":
            self._answer(status, headers, answer[: len(answer) // 2], length=len(answer))
            self._hang_up()
        else:
            self._answer(status, headers, answer)

    def _forward(self, body):
        connection = http.client.HTTPConnection(self.server.target, timeout=30)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("content-length", "connection", "expect"):
                connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        headers = [
            (name, value)
            for name, value in response.getheaders()
            if name.lower() not in ("transfer-encoding", "connection", "content-length")
        ]
        length = response.getheader("Content-Length")
        answer = response.read()
        connection.close()
        if self.command == "HEAD" and length is not None:
            headers.append(("Content-Length", length))
        return response.status, headers, answer

    def _answer(self, status, headers, answer, length=None):
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(answer) if length is None else length))
        self.end_headers()
        self.wfile.write(answer)

    def _hang_up(self):
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any  # noqa: N815

    def log_message(self, *_):
        pass
