"""TLS and certificates of clients on every listener, with real clients; certificates replaced under traffic."""
import os
import signal
import socket
import ssl
import subprocess
import threading
import time

import grpc
import httpx2 as httpx  # what the openai client speaks through
import pytest
from openai import APIConnectionError, OpenAI

from certificates import Authority, put, read
from daemon import Daemon, free_port, program, refused, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def authority(folder):
    return Authority(folder, "ours")


@pytest.fixture(scope="module")
def strangers(folder):
    return Authority(folder, "strangers")


class TlsDaemon(Daemon):
    """A fastgend whose listeners speak TLS; the certificate's files are the test's to replace."""

    def __init__(self, authority, *args, client_ca=None, name="server"):
        self.authority = authority
        self.cert, self.key = authority.path(f"{name}-live.pem"), authority.path(f"{name}-live.key")
        self.replace(name)
        more = ["--tls-client-ca", client_ca] if client_ca else []
        super().__init__("--tls-cert", self.cert, "--tls-key", self.key, *more, *args, wait=False)
        self.https = self.http.replace("http://", "https://")
        self.wait_line("fgchat --connect")

    def replace(self, name):
        for made, live in zip(self.authority.issue(name), (self.cert, self.key)):
            put(made, live)

    def channel(self, ca, pair=None):
        certificate, key = (read(pair[0]), read(pair[1])) if pair else (None, None)
        return grpc.secure_channel(self.grpc, grpc.ssl_channel_credentials(read(ca), key, certificate),
                                   options=[("grpc.use_local_subchannel_pool", 1)])

    def served_name(self):
        """The name in the certificate that a new HTTPS connection is shown."""
        context = ssl.create_default_context(cafile=self.authority.ca)
        with socket.create_connection(("127.0.0.1", self.http_port), timeout=20) as plain:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped:
                return dict(part[0] for part in wrapped.getpeercert()["subject"])["commonName"]


@pytest.fixture(scope="module")
def tls(authority):
    with TlsDaemon(authority) as running:
        yield running
        assert running.stop() == 0, running.log


@pytest.fixture(scope="module")
def mtls(authority):
    with TlsDaemon(authority, client_ca=authority.ca, name="strict") as running:
        yield running
        assert running.stop() == 0, running.log


def info(pb, channel):
    with channel:
        stub = pb.inference_grpc.InferenceStub(channel)
        return stub.GetModelInfo(pb.inference.GetModelInfoRequest(), timeout=20).name


def openai_client(daemon, verify):
    return OpenAI(base_url=daemon.https + "/v1", api_key="foo", max_retries=0, http_client=httpx.Client(verify=verify))


def test_openai_client_over_https(tls, authority):
    client = openai_client(tls, ssl.create_default_context(cafile=authority.ca))
    answer = client.completions.create(model="m", prompt="Once", max_tokens=4)
    assert answer.usage.completion_tokens > 0
    chunks = list(client.chat.completions.create(model="m", stream=True, max_tokens=4,
                                                 messages=[{"role": "user", "content": "Hello"}]))
    assert chunks[-1].choices[0].finish_reason


def test_https_refused_by_a_client_that_does_not_know_the_ca(tls, strangers):
    with pytest.raises(APIConnectionError):
        openai_client(tls, ssl.create_default_context(cafile=strangers.ca)).models.list()


def test_grpc_over_tls(tls, authority, strangers, pb):
    assert info(pb, tls.channel(authority.ca))
    for channel in (tls.channel(strangers.ca), grpc.insecure_channel(tls.grpc)):
        with pytest.raises(grpc.RpcError) as failed:
            info(pb, channel)
        assert failed.value.code() == grpc.StatusCode.UNAVAILABLE


def test_grpc_asks_for_a_client_certificate(mtls, authority, strangers, pb):
    assert info(pb, mtls.channel(authority.ca, authority.issue("client")))
    for pair in (None, strangers.issue("client")):
        with pytest.raises(grpc.RpcError) as failed:
            info(pb, mtls.channel(authority.ca, pair))
        assert failed.value.code() == grpc.StatusCode.UNAVAILABLE


def test_https_asks_for_a_client_certificate(mtls, authority, strangers):
    def get(pair):
        context = ssl.create_default_context(cafile=authority.ca)
        if pair:
            context.load_cert_chain(*pair)
        with httpx.Client(verify=context) as client:
            return client.get(mtls.https + "/v1/models").status_code

    assert get(authority.issue("client")) == 200
    for pair in (None, strangers.issue("client")):
        with pytest.raises(httpx.TransportError):
            get(pair)


def test_a_certificate_is_replaced_under_traffic(authority, pb):
    with TlsDaemon(authority, name="before") as daemon:
        context = ssl.create_default_context(cafile=authority.ca)
        stop, failures, served = threading.Event(), [], [0]

        def call_over_and_over():
            while not stop.is_set():
                try:
                    with httpx.Client(verify=context) as client:
                        assert client.get(daemon.https + "/health").status_code == 200
                    assert info(pb, daemon.channel(authority.ca))
                    served[0] += 1
                except Exception as failure:  # noqa: BLE001: any failure is the test's
                    failures.append(repr(failure))

        def both_say(words):  # gRPC and HTTP each look, and say it once
            deadline = time.monotonic() + 30
            while daemon.log.count(words) < 2 and time.monotonic() < deadline:
                time.sleep(0.05)

        kept = httpx.Client(verify=context)
        assert kept.get(daemon.https + "/health").status_code == 200
        caller = threading.Thread(target=call_over_and_over)
        caller.start()
        try:
            assert daemon.served_name() == "before"
            daemon.replace("after")
            both_say("TLS took the new certificate")
            assert daemon.served_name() == "after"
            put("garbage", daemon.key)
            daemon.wait_line("TLS goes on with the certificate that it has")
            assert daemon.served_name() == "after"
            assert kept.get(daemon.https + "/health").status_code == 200
            both_say("TLS goes on with")
        finally:
            stop.set()
            caller.join()
            kept.close()
        assert not failures and served[0] > 0
        assert daemon.log.count("TLS goes on with") == 2
        assert daemon.stop() == 0


def test_plain_http_to_a_tls_port_is_told_so(tls):
    with socket.create_connection(("127.0.0.1", tls.http_port), timeout=20) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400 ") and b"HTTPS" in answer


@pytest.mark.parametrize("port", ["http_port", "grpc_port"])
def test_garbage_and_silence_on_a_tls_port_hurt_nobody(tls, port):
    address = ("127.0.0.1", getattr(tls, port))
    silent = [socket.create_connection(address, timeout=20) for _ in range(50)]
    for data in (b"\0" * 4096, os.urandom(1 << 16), b"\x16\x03\x01\xff\xff" + b"x" * 70000, b"\x16\x03\x01\x02\x00\x01"):
        with socket.create_connection(address, timeout=20) as connection:
            try:
                connection.sendall(data)
            except OSError:
                pass
    assert tls.served_name() == "server"
    for connection in silent:
        connection.close()
    assert tls.alive()


def test_gateway_alone_reaches_a_daemon_that_asks_for_certificates(mtls, authority):
    cert, key = authority.issue("gateway")
    port = free_port()
    gateway = subprocess.Popen(
        [program("fastgen-gateway"), "--listen", f"127.0.0.1:{port}", "--tls-cert", cert, "--tls-key", key, "--connect",
         mtls.grpc, "--connect-ca", authority.ca, "--connect-cert", cert, "--connect-key", key], stderr=subprocess.DEVNULL)
    try:
        context = ssl.create_default_context(cafile=authority.ca)
        deadline = time.monotonic() + 20
        while True:
            try:
                answer = httpx.get(f"https://127.0.0.1:{port}/v1/models", verify=context, timeout=20)
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline and gateway.poll() is None
                time.sleep(0.05)
        assert answer.status_code == 200 and answer.json()["data"]
    finally:
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait(20) == 0


def test_bad_files_and_public_addresses_end_the_start(authority, folder):
    cert, key = authority.issue("start")
    other = authority.issue("other")[1]
    garbage = str(folder / "garbage")
    put("garbage", garbage)
    refused("--tls-cert", garbage, "--tls-key", key, words=("--tls-cert", garbage))
    refused("--tls-cert", cert, "--tls-key", other, words=("--tls-key", other))
    refused("--tls-cert", cert, "--tls-key", key, "--tls-client-ca", garbage, words=("--tls-client-ca", garbage))
    refused("--tls-cert", cert, words=("--tls-key",))
    refused("--http-listen", f"0.0.0.0:{free_port()}", words=("0.0.0.0", "--api-keys", "--allow-public-without-keys"))


def test_fgchat_talks_by_tls_and_shows_its_certificate(tls, mtls, authority, strangers):
    def chat(daemon, *flags):
        return run("fgchat", "--connect", daemon.grpc, "--max-tokens", "8", *flags, stdin="Hello\n/q\n")

    pair = authority.issue("chatter")
    mine = ("--connect-cert", pair[0], "--connect-key", pair[1])
    for ended in (chat(tls, "--connect-ca", authority.ca), chat(mtls, "--connect-ca", authority.ca, *mine)):
        assert ended.returncode == 0 and "tokens" in ended.stdout, ended.stderr
    for ended in (chat(tls), chat(tls, "--connect-ca", strangers.ca), chat(mtls, "--connect-ca", authority.ca)):
        assert ended.returncode == 1 and "TLS" in ended.stderr, ended.stderr
    alone = chat(tls, *mine)
    assert alone.returncode == 1 and "--connect-ca" in alone.stderr
