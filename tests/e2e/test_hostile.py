"""Bytes that a stranger may send: each one refused, none of them kills the daemon or fills its memory."""
import json
import signal
import socket
import time

import grpc
import pytest

from daemon import Daemon


def raw(daemon, data, read=True):
    """Sends bytes on a connection of their own; the answer's first line."""
    with socket.create_connection(("127.0.0.1", daemon.http_port), timeout=20) as connection:
        try:
            connection.sendall(data)
            return connection.recv(65536).split(b"\r\n")[0].decode() if read else ""
        except (ConnectionResetError, BrokenPipeError):
            return ""


def rss_mib(daemon):
    pages = int(open(f"/proc/{daemon.process.pid}/statm").read().split()[1])
    return pages * 4096 / (1 << 20)


@pytest.mark.parametrize("header", [b"Authorization: Bearer \xff", b"x-api-key: a\tb", b"traceparent: \x80", b"tracestate: \xc3\xa9"])
def test_header_bytes_that_grpc_forbids_are_a_400(daemon, header):
    assert " 400 " in raw(daemon, b"GET /health HTTP/1.1\r\nHost: x\r\n" + header + b"\r\n\r\n")
    assert daemon.get("/health")[0] == 200


def test_an_endless_chunk_extension_is_cut_off(daemon):
    before = rss_mib(daemon)
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    first = raw(daemon, head + b"5;a=" + b"a" * (64 << 20))
    assert first == "" or " 431 " in first or " 413 " in first
    assert rss_mib(daemon) - before < 32
    assert daemon.get("/health")[0] == 200


def test_shared_fields_are_not_multiplied_by_prompts(daemon):
    before = rss_mib(daemon)
    status, answer = daemon.post("/v1/completions", {"prompt": ["a"] * 1024, "max_tokens": 1, "stop": ["x" * (1 << 20)]})
    assert status == 400 and answer["error"]["param"] in ("prompt", "stop")
    assert rss_mib(daemon) - before < 256


def test_a_flood_of_mistakes_is_one_short_answer(stub, pb):
    chat = pb.inference.Chat(messages=[pb.inference.ChatMessage() for _ in range(4000)])
    with pytest.raises(grpc.RpcError) as refused:
        list(stub.Generate(pb.inference.GenerateRequest(chat=chat)))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "messages[0].role" in refused.value.details() and len(refused.value.details()) < 4096


def test_a_storm_of_attaches_leaves_the_request_to_the_last(stub, admin, pb):
    request = pb.inference.GenerateRequest(request_id="storm", text="Count", output=pb.inference.Output(token_ids=True),
                                           stopping=pb.inference.Stopping(max_tokens=200, ignore_eos=True))
    request.resume_window.seconds = 30
    owner = stub.Generate(request)
    next(owner)
    streams = [stub.Attach(pb.inference.AttachRequest(request_id="storm")) for _ in range(100)]
    codes = []
    for stream in [owner] + streams:
        try:
            for _ in stream:
                pass
            codes.append(stream.code())
        except grpc.RpcError as error:
            codes.append(error.code())
    assert codes.count(grpc.StatusCode.OK) >= 1
    assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.ABORTED}
    assert list(stub.Cancel(pb.inference.CancelRequest(request_ids=["storm"])).not_found) == ["storm"]


def test_128_choices_whose_reader_leaves_are_gone(stub, admin, pb):
    request = pb.inference.GenerateRequest(text="Count", n=128, stopping=pb.inference.Stopping(max_tokens=500, ignore_eos=True))
    stream = stub.Generate(request)
    next(stream)
    stream.cancel()
    deadline = time.monotonic() + 20
    while admin.GetStats(pb.admin.GetStatsRequest()).num_running:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_repeated_ids_in_one_cancel_are_bounded(stub, pb):
    with pytest.raises(grpc.RpcError) as refused:
        stub.Cancel(pb.inference.CancelRequest(request_ids=["a"] * 100000))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT and "100000" in refused.value.details()


def test_a_request_that_completes_after_the_second_signal_does_not_crash():
    with Daemon() as daemon:
        body = json.dumps({"prompt": "a", "max_tokens": 1}).encode()
        request = (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
                   + str(len(body)).encode() + b"\r\n\r\n" + body)
        with socket.create_connection(("127.0.0.1", daemon.http_port)) as connection:
            connection.sendall(request[:20])
            time.sleep(0.1)
            daemon.signal(signal.SIGTERM)
            daemon.wait_line("draining")
            daemon.signal(signal.SIGTERM)
            daemon.wait_line("second signal")
            time.sleep(0.4)
            try:
                connection.sendall(request[20:])
            except OSError:
                pass
            assert daemon.wait(15) in (1, -signal.SIGTERM)
