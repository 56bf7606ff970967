"""Starts the real programs for the tests and talks to them: a Daemon owns one fastgend process."""
import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

BIN = os.path.join(os.environ["FASTGEN_BUILD_DIR"], "bin")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def program(name):
    return os.path.join(BIN, name)


def run(name, *args, stdin=None, timeout=60, env=None):
    """Runs a program to its end; returns the CompletedProcess with text output."""
    return subprocess.run([program(name), *args], input=stdin, capture_output=True, text=True, timeout=timeout,
                          env={**os.environ, **(env or {})})


def default_model():
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(cache, "fastgen", "SmolLM2-135M-Instruct.Q4_1.gguf")


def refused(*args, words=()):
    """The program must end with exit code 1 and one clear line that holds the words."""
    ended = run("fastgend", "--grpc-listen", f"127.0.0.1:{free_port()}", *args)
    assert ended.returncode == 1, (ended.returncode, ended.stderr)
    last = ended.stderr.strip().splitlines()[-1]
    for word in words:
        assert word in last, ended.stderr
    return last


class Daemon:
    """A fastgend with both listeners on free ports. Usable as a context manager; killed at the end if still alive."""

    def __init__(self, *args, name="fastgend", wait=True):
        self.grpc_port, self.http_port = free_port(), free_port()
        self.grpc, self.http = f"127.0.0.1:{self.grpc_port}", f"http://127.0.0.1:{self.http_port}"
        self.process = subprocess.Popen(
            [program(name), "--grpc-listen", self.grpc, "--http-listen", f"127.0.0.1:{self.http_port}", *args],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.lines = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if wait:
            self.wait_ready()

    def _read(self):
        for line in self.process.stderr:
            self.lines.append(line)

    def wait_line(self, words, timeout=60):
        """The first line of the log that holds the words."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for line in list(self.lines):
                if words in line:
                    return line
            time.sleep(0.01)
        raise RuntimeError(f"no line with {words!r} after {timeout} s:\n{self.log}")

    @property
    def log(self):
        return "".join(self.lines)

    def wait_ready(self, timeout=60):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                self._reader.join(5)
                raise RuntimeError(f"the daemon ended with {self.process.returncode}:\n{self.log}")
            try:
                if self.get("/health")[0] == 200:
                    return self.wait_line("fgchat --connect")  # the last line of the start
            except OSError:
                pass
            time.sleep(0.05)
        raise RuntimeError(f"not ready after {timeout} s:\n{self.log}")

    def request(self, method, path, body=None, headers=None):
        """(status, headers, bytes) of one HTTP call; `body` is JSON, or bytes as they are."""
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        call = urllib.request.Request(self.http + path, data=data, method=method,
                                      headers={"Content-Type": "application/json", **(headers or {})})
        try:
            with urllib.request.urlopen(call, timeout=60) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def get(self, path):
        return self.request("GET", path)

    def post(self, path, body, headers=None):
        status, _, data = self.request("POST", path, body, headers)
        return status, json.loads(data)

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, timeout=30):
        code = self.process.wait(timeout)
        self._reader.join(5)
        return code

    def alive(self):
        return self.process.poll() is None

    def stop(self):
        """Ends the process by SIGTERM; returns its exit code."""
        if self.alive():
            self.signal(signal.SIGTERM)
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        if self.alive():
            self.process.kill()
        self.wait()
