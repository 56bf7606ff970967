"""A hub that serves one model directory as org/tiny, as far as fastgend and huggingface_hub ask."""
import hashlib
import http.server
import json
import os
import re
import threading

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = 4096  # bytes; what has more is known by its sha256


class FakeHub:
    """Listens until the end of the with block. `hold`: a file whose body stops after half, until it is set to None."""

    def __init__(self, directory, token=None, hold=None):
        self.token, self.hold = token, hold
        self.requests = []  # "METHOD path"
        self.files = {}
        for name in os.listdir(directory):
            with open(os.path.join(directory, name), "rb") as file:
                self.files[name] = file.read()
        self.ended = threading.Event()
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                hub.answer(self)

            do_HEAD = do_GET

            def log_message(self, *unused):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *unused):
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()

    def etag(self, name):
        data = self.files[name]
        if len(data) >= LARGE:
            return hashlib.sha256(data).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    def entry(self, name, key):
        data = self.files[name]
        entry = {key: name, "size": len(data), "blobId": "0" * 40, "oid": "0" * 40, "type": "file"}
        if len(data) >= LARGE:
            entry["lfs"] = {"sha256": self.etag(name), "oid": self.etag(name), "size": len(data), "pointerSize": 130}
        else:
            entry["blobId"] = entry["oid"] = self.etag(name)
        return entry

    def answer(self, handler):
        path = handler.path.split("?")[0]
        self.requests.append(f"{handler.command} {path}")
        if self.token is not None and handler.headers.get("Authorization") != f"Bearer {self.token}":
            return self.send(handler, 401, b"no", {"X-Error-Code": "GatedRepo"})
        if re.fullmatch(r"/api/models/org/tiny(/revision/[^/]+)?", path):
            siblings = [self.entry(name, "rfilename") for name in self.files]
            body = {"_id": "1", "id": "org/tiny", "modelId": "org/tiny", "sha": COMMIT, "siblings": siblings,
                    "private": False, "tags": [], "downloads": 0, "likes": 0}
            return self.send(handler, 200, json.dumps(body).encode())
        if path.startswith("/api/models/org/tiny/tree/"):
            return self.send(handler, 200, json.dumps([self.entry(name, "path") for name in self.files]).encode())
        name = path.rsplit("/", 1)[1]
        if not re.fullmatch(r"/org/tiny/resolve/[^/]+/[^/]+", path) or name not in self.files:
            return self.send(handler, 404, b"no", {"X-Error-Code": "EntryNotFound"})
        headers = {"ETag": f'"{self.etag(name)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        data, status = self.files[name], 200
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", ""))
        if wanted:
            first, last = int(wanted[1]), int(wanted[2] or len(data) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            data, status = data[first:last + 1], 206
        self.send(handler, status, data, headers, name)

    def send(self, handler, status, body, headers=None, name=None):
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        for key, value in (headers or {}).items():
            handler.send_header(key, value)
        handler.end_headers()
        if handler.command == "HEAD":
            return
        if name is not None and name == self.hold:
            handler.wfile.write(body[:len(body) // 2])
            handler.wfile.flush()
            self.ended.wait(60)
            return
        handler.wfile.write(body)
