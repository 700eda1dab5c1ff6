"""A server on loopback that answers as a test tells it to."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Scripted(ThreadingHTTPServer):
    """Takes one step of its script for each request; without one, does what `answer` does."""

    request_queue_size = 256
    daemon_threads = True

    def __init__(self, answer=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked, self.script, self.answer = [], [], answer

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: "Scripted"

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.reply(200, {"data": [{"id": "good"}]})

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        self.body = json.loads(self.rfile.read(length))
        self.server.asked.append((self.path, self.body, self.headers))
        step = self.server.script.pop(0) if self.server.script else self.server.answer
        step(self)

    def reply(self, status, content, **headers):
        data = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def stream(self, *events, end=True):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for event in events:
            text = event if isinstance(event, str) else "data: " + json.dumps(event)
            self.wfile.write((text + "\n\n").encode())
            self.wfile.flush()
        if end:
            self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True


def piece(text, finish=None, **more):
    return {"choices": [{"delta": {"content": text} | more, "finish_reason": finish}]}
