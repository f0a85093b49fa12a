"""A function without a model, for the tests of the runner: what an event's data say is what it does.

`{"status": 500}` is the answer; `{"times": 2, "status": 500}` only the first two times; `{"sleep": 0.3}` takes that long;
`{"die": true}` ends the process. Every request is a line in the file STUB_CALLS: process id, event id.
As a job it reads K_EVENT_PATH and does the same, its exit status being 0 or the `status`.
"""

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from mlaas import events
from mlaas.errors import MlaasError
from mlaas.events import to_http

CALLS = Path(os.environ["STUB_CALLS"])


def act(event_id, data):
    """Do what the data say; the status to answer with."""
    with CALLS.open("a") as calls:
        calls.write(json.dumps([os.getpid(), event_id]) + "\n")
    if data.get("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(data.get("sleep", 0))
    if "times" in data:
        before = sum(json.loads(line)[1] == event_id for line in CALLS.read_text().splitlines())
        return data["status"] if before <= data["times"] else 0
    return data.get("status", 0)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # headers and body in one packet, or every answer waits 40 ms for an acknowledgement

    def do_GET(self):
        self.answer(200, {"path": self.path}, {"Content-Type": "application/json"})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not events.is_event(self.headers):
            return self.answer(200, {"length": len(body), "query": self.path}, {"Content-Type": "application/json"})
        try:
            event = events.from_request(dict(self.headers), body)
        except (MlaasError, RecursionError):
            return self.answer(400, {"detail": "no event"}, {"Content-Type": "application/problem+json"})
        if not event["type"].endswith(".requested.v1"):
            return self.answer(400, {"detail": f"no function takes {event['type']}"}, {"Content-Type": "application/problem+json"})
        data = event.data if isinstance(event.data, dict) else {}
        if status := act(event["id"], data):
            return self.answer(
                status, {"detail": f"told to say {status}"}, {"Content-Type": "application/problem+json", **data.get("headers", {})}
            )
        reply = events.reply(event, "classify", "succeeded", data)
        headers, content = to_http(reply)
        return self.answer(200, json.loads(content), headers)

    def answer(self, status, body, headers):
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


def main():
    if "K_EVENT_PATH" in os.environ:
        event = json.loads((Path(os.environ["K_EVENT_PATH"]) / "event").read_text())
        sys.exit(act(event["id"], event["data"]))
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()


if __name__ == "__main__":
    main()
