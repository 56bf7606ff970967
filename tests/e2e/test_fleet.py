"""fastgen-gateway before several daemons: who is asked, what a killed or drained daemon costs, what reaches the right one."""
import hashlib
import json
import signal
import socket
import subprocess
import threading
import time

import grpc
import pytest

import tiny_model
from daemon import Daemon, free_port, program


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model with room for answers that take a second or two."""
    path = tmp_path_factory.mktemp("fleet") / "tiny"
    tiny_model.write(str(path))
    config = json.loads((path / "config.json").read_text())
    config["max_position_embeddings"] = 16384
    (path / "config.json").write_text(json.dumps(config))
    return str(path)


class Member(Daemon):
    """A daemon whose gRPC address is its own to keep, also over a restart."""

    def __init__(self, model, *args, port=None, wait=True):
        self.port = port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        super().__init__("--model", model, "--grpc-listen", self.address, *args, wait=wait)

    def num_live(self, pb):
        with grpc.insecure_channel(self.address) as channel:
            return len(pb.admin_grpc.AdminStub(channel).ListRequests(pb.admin.ListRequestsRequest()).requests)

    def pause(self, pb):
        with grpc.insecure_channel(self.address) as channel:
            pb.admin_grpc.AdminStub(channel).Pause(pb.admin.PauseRequest())

    def kill(self):
        self.process.kill()
        self.wait()


class Gateway:
    """A fastgen-gateway before the addresses, as a context manager."""
    request, get, post = Daemon.request, Daemon.get, Daemon.post
    _read, log, wait_line = Daemon._read, Daemon.log, Daemon.wait_line

    def __init__(self, addresses, *args):
        self.http_port = free_port()
        self.http = f"http://127.0.0.1:{self.http_port}"
        self.process = subprocess.Popen(
            [program("fastgen-gateway"), "--listen", f"127.0.0.1:{self.http_port}", "--connect", ",".join(addresses), *args],
            stderr=subprocess.PIPE, text=True)
        self.lines = []
        threading.Thread(target=self._read, daemon=True).start()
        self.wait_line("serving HTTP")

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.process.terminate()
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def health(self):
        status, _, body = self.get("/health")
        return status, json.loads(body)

    def states(self):
        return {daemon["address"]: daemon["state"] for daemon in self.health()[1]["daemons"]}

    def wait_states(self, **wanted):
        """Waits until each daemon, by its place among them, is as it is said."""
        wait_for(lambda: list(self.states().values()) == list(wanted["states"]))

    def metric(self, sample):
        for line in self.get("/metrics")[2].decode().splitlines():
            if line.startswith("fastgen_gateway_" + sample + " "):
                return int(line.split()[-1])
        raise AssertionError(sample)

    def complete(self, prompt="Hello", max_tokens=4, headers=None, **more):
        return self.post("/v1/completions", {"prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True, **more}, headers)


class Stream:
    """A streamed completion that is read as it is asked for."""

    def __init__(self, gateway, max_tokens=8000, headers="", path=None):
        self.socket = socket.create_connection(("127.0.0.1", gateway.http_port), timeout=60)
        if path:
            self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n".encode())
        else:
            body = json.dumps({"prompt": "Hello", "max_tokens": max_tokens, "ignore_eos": True, "stream": True})
            self.socket.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
                                f"Content-Length: {len(body)}\r\n{headers}\r\n{body}".encode())
        self.reader = self.socket.makefile("rb")

    def read_data(self):
        """The next data line; None at the end."""
        for line in self.reader:
            if line.startswith(b"data: "):
                return line[6:].strip().decode()
        return None

    def rest(self):
        return list(iter(self.read_data, None))

    def close(self):
        self.reader.close()
        self.socket.close()


def wait_for(condition, timeout=20):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def pair(model):
    with Member(model) as one, Member(model) as other:
        yield one, other


def test_what_a_killed_daemon_had_not_begun_is_answered_by_the_other(pb, model, pair):
    one, other = pair
    with Gateway([one.address, other.address]) as gateway:
        one.pause(pb)  # takes requests and begins none
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(gateway.complete())) for _ in range(8)]
        for thread in threads:
            thread.start()
        wait_for(lambda: one.num_live(pb) > 0)
        waiting = one.num_live(pb)
        one.kill()
        for thread in threads:
            thread.join(30)
        assert [status for status, _ in answers] == [200] * 8, answers
        assert gateway.metric('retries_total{reason="lost"}') >= waiting
        gateway.wait_states(states=["unreachable", "serving"])
        for _ in range(4):
            assert gateway.complete()[0] == 200
        # It comes back under its address and is used again.
        calls = gateway.metric(f'calls_total{{daemon="{one.address}"}}')
        with Member(model, port=one.port):
            gateway.wait_states(states=["serving", "serving"])
            for _ in range(4):
                assert gateway.complete()[0] == 200
            assert gateway.metric(f'calls_total{{daemon="{one.address}"}}') > calls


def test_a_stream_of_a_killed_daemon_ends_with_an_error_event(pb, pair):
    with Gateway([daemon.address for daemon in pair]) as gateway:
        stream = Stream(gateway)
        assert "choices" in json.loads(stream.read_data())
        stream.read_data()
        has_it = next(daemon for daemon in pair if daemon.num_live(pb) == 1)
        has_it.kill()
        rest = stream.rest()
        assert rest[-1] == "[DONE]"
        error = json.loads(rest[-2])["error"]
        assert (error["code"], error["type"]) == ("unavailable", "unavailable_error"), error
        assert all("choices" in json.loads(line) for line in rest[:-2])
        assert gateway.complete()[0] == 200


def test_a_drained_daemon_loses_nothing(pb, pair):
    with Gateway([daemon.address for daemon in pair]) as gateway:
        stream = Stream(gateway, max_tokens=3000)
        stream.read_data()
        has_it = next(daemon for daemon in pair if daemon.num_live(pb) == 1)
        statuses, stop = [], threading.Event()

        def traffic():
            while not stop.is_set():
                statuses.append(gateway.complete()[0])

        threads = [threading.Thread(target=traffic) for _ in range(3)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(statuses) > 20)
        has_it.signal(signal.SIGTERM)
        before = len(statuses)
        wait_for(lambda: len(statuses) > before + 40)
        rest = stream.rest()
        assert rest[-1] == "[DONE]"
        assert not any("error" in json.loads(line) for line in rest[:-1])
        assert has_it.wait() == 0, has_it.log
        stop.set()
        for thread in threads:
            thread.join(30)
        assert set(statuses) == {200}


def test_a_daemon_whose_queue_is_full_is_passed_over(pb, model):
    with Member(model, "--max-queued-requests", "1") as full, Member(model) as other:
        # Asked once, at the start, so that the gateway learns of the queue by being refused.
        with Gateway([full.address, other.address], "--check-interval", "3600") as gateway:
            full.pause(pb)
            with grpc.insecure_channel(full.address) as channel:
                stub = pb.inference_grpc.InferenceStub(channel)
                waiting = stub.Generate(pb.inference.GenerateRequest(text="waits"))
                wait_for(lambda: full.num_live(pb) == 1)
                for _ in range(6):
                    assert gateway.complete()[0] == 200
                assert gateway.metric('retries_total{reason="overloaded"}') >= 1
                assert full.num_live(pb) == 1
                waiting.cancel()


def test_a_client_that_leaves_ends_the_work_on_its_daemon(pb, pair):
    with Gateway([daemon.address for daemon in pair]) as gateway:
        streams = [Stream(gateway, max_tokens=16000) for _ in range(2)]
        for stream in streams:
            stream.read_data()
        assert [daemon.num_live(pb) for daemon in pair] == [1, 1]
        for stream in streams:
            stream.close()
        wait_for(lambda: [daemon.num_live(pb) for daemon in pair] == [0, 0], timeout=3)


def test_cancel_and_resume_reach_the_daemon_that_has_the_request(pb, pair):
    with Gateway([daemon.address for daemon in pair]) as gateway:
        window = "X-Fastgen-Resume-Window: 60\r\n"
        for i in range(2):
            stream = Stream(gateway, max_tokens=2000, headers=window + f"X-Request-Id: again-{i}\r\n")
            stream.read_data()
            stream.close()
        for i in range(2):
            rest = Stream(gateway, path=f"/v1/streams/again-{i}").rest()
            assert rest[-1] == "[DONE]"
            assert json.loads(rest[-2])["choices"][0]["finish_reason"] == "length"
        streams = [Stream(gateway, max_tokens=16000, headers=f"X-Request-Id: mine-{i}\r\n") for i in range(2)]
        for stream in streams:
            stream.read_data()
        assert [daemon.num_live(pb) for daemon in pair] == [1, 1]
        status, answer = gateway.post("/v1/cancel", {"request_ids": ["mine-0", "mine-1", "nobody"]})
        assert (status, answer) == (200, {"cancelled": ["mine-0", "mine-1"], "not_found": ["nobody"]})
        for stream in streams:
            assert stream.rest()[-1] == "[DONE]"
        assert [daemon.num_live(pb) for daemon in pair] == [0, 0]


def test_a_fleet_that_is_down_says_so_at_once_and_is_used_when_it_comes(model):
    ports = [free_port(), free_port()]
    with Gateway([f"127.0.0.1:{port}" for port in ports]) as gateway:
        start = time.monotonic()
        status, headers, body = gateway.request("POST", "/v1/completions", {"prompt": "Hello"})
        assert time.monotonic() - start < 1
        assert (status, headers["Retry-After"]) == (503, "1")
        assert json.loads(body)["error"]["code"] == "unavailable"
        status, health = gateway.health()
        assert status == 503
        assert [daemon["state"] for daemon in health["daemons"]] == ["unreachable"] * 2
        assert "cannot be reached" in health["error"]["message"]
        with Member(model, port=ports[1]):
            gateway.wait_states(states=["unreachable", "serving"])
            assert gateway.health()[0] == 200
            assert gateway.complete()[0] == 200


def test_a_daemon_that_hangs_is_left_alone(pair):
    one, other = pair
    with Gateway([one.address, other.address], "--check-timeout", "0.5") as gateway:
        one.signal(signal.SIGSTOP)
        try:
            gateway.wait_states(states=["unreachable", "serving"])
            assert "did not answer within 500ms" in gateway.health()[1]["daemons"][0]["reason"]
            for _ in range(4):
                assert gateway.complete()[0] == 200
        finally:
            one.signal(signal.SIGCONT)
        gateway.wait_states(states=["serving", "serving"])


def test_a_stream_of_a_daemon_that_hangs_ends_with_an_error(pair):
    one, other = pair
    other.signal(signal.SIGSTOP)
    try:
        with Gateway([one.address, other.address]) as gateway:
            gateway.wait_states(states=["serving", "unreachable"])
            stream = Stream(gateway, max_tokens=16000)
            assert "error" not in stream.read_data()
            one.signal(signal.SIGSTOP)
            # What was on its way comes first; then nothing, until the connection's keep-alive has given up.
            said = None
            while (line := stream.read_data()) is not None:
                said = line if "error" in line else said
            assert said is not None and json.loads(said)["error"]["code"] == "unavailable", said
            one.signal(signal.SIGCONT)
    finally:
        for daemon in pair:
            daemon.signal(signal.SIGCONT)


def test_a_daemon_with_another_model_is_not_used_and_named_in_the_log(model, tmp_path):
    tiny_model.write(str(tmp_path / "other"))
    with Member(model) as right, Member(str(tmp_path / "other")) as wrong:
        with Gateway([wrong.address, right.address], "--model", "tiny") as gateway:
            line = gateway.wait_line(f"daemon {wrong.address} is not used")
            assert "it serves other, and the fleet's model is tiny" in line
            assert list(gateway.states().values()) == ["wrong model", "serving"]
            for _ in range(4):
                status, answer = gateway.complete()
                assert (status, answer["model"]) == (200, "tiny")
            assert gateway.metric(f'calls_total{{daemon="{wrong.address}"}}') == 0


def test_a_conversation_finds_its_cached_prefix(pair):
    with Gateway([daemon.address for daemon in pair]) as gateway:
        for system in ("You are terse. " * 60, "You are verbose. " * 60):
            for turn in range(4):
                status, answer = gateway.complete(prompt=system + f"Turn {turn}")
                assert status == 200
                cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
                assert (cached > 0) == (turn > 0), (turn, answer["usage"])


def test_keys_travel_to_the_daemons_and_a_key_of_the_gateways_own_tells_their_models(model, tmp_path):
    def line(name, key, scope):
        return f"{name} sha256:{hashlib.sha256(key.encode()).hexdigest()} {scope}\n"

    keys = tmp_path / "keys"
    keys.write_text(line("user", "k" * 43, "infer") + line("watch", "w" * 43, "metrics"))
    keys.chmod(0o600)
    own = tmp_path / "own"
    own.write_text("w" * 43 + "\n")
    args = ["--api-keys", str(keys)]
    with Member(model, *args, wait=False) as one, Member(model, *args, wait=False) as other:
        for daemon in (one, other):
            daemon.wait_line("fgchat --connect")
        for flags, known in ((["--daemon-key-file", str(own)], "tiny"), ([], "")):
            with Gateway([one.address, other.address], *flags) as gateway:
                status, health = gateway.health()
                assert (status, health["model"]) == (200, known)
                assert gateway.complete()[0] == 401
                status, answer = gateway.complete(headers={"Authorization": "Bearer " + "k" * 43})
                assert (status, answer["model"]) == (200, "tiny"), answer
                assert "w" * 43 not in gateway.log


def test_mistakes_of_the_command_line_are_one_line():
    for args, words in ((["--connect", "a:1,a:1"], "--connect a:1 is given twice"),
                        (["--daemon-key-file", "/dev/null"], "must hold one API key"),
                        (["--load-bound", "0.5"], "--load-bound"), (["--daemon-key-file", "/nowhere"], "--daemon-key-file")):
        ended = subprocess.run([program("fastgen-gateway"), "--listen", "127.0.0.1:0", *args], capture_output=True, text=True, timeout=30)
        assert ended.returncode == 1
        assert len(ended.stderr.strip().splitlines()) == 1 and words in ended.stderr, ended.stderr
