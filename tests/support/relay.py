"""A relay between a program and the daemon: something can happen just before an answer arrives."""

import http.client
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

Meanwhile = Callable[[str, int], None]
"""Gets a request, such as `GET /v1/session`, and the status of its answer."""


class Relay:
    """Passes on requests and answers, and calls `meanwhile` before each answer is passed on.

    Args:
        url: of the daemon.
        meanwhile: what happens then.
        port: where it listens; 0 picks a free one.
    """

    def __init__(self, url: str, meanwhile: Meanwhile = lambda _request, _status: None, port: int = 0) -> None:
        self.seen: list[tuple[str, int]] = []
        relay, target = self, urlsplit(url)

        class Handler(BaseHTTPRequestHandler):
            """One connection."""

            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                kept = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                headers = {**kept, "Host": target.netloc}
                connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=30)
                connection.request(self.command, self.path, body or None, headers)
                answer = connection.getresponse()
                text, request = answer.read(), f"{self.command} {self.path}"
                connection.close()
                relay.seen.append((request, answer.status))
                meanwhile(request, answer.status)
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() in {"content-type", "retry-after"}:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815 (the library asks for these names)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Keep silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
