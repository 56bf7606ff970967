"""HTTP's ways in and their limits, on a real daemon: socket files, Admin's own listener, CORS, timeouts, many
connections."""
import json
import os
import resource
import signal
import socket
import stat
import threading
import time

import grpc
import httpx2 as httpx  # what the openai client speaks through
import pytest

from daemon import Daemon, free_port, refused

GET = b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"


def connect(daemon):
    return socket.create_connection(("127.0.0.1", daemon.http_port), timeout=30)


def read_answer(connection):
    """(status, head, body) of one answer with a Content-Length."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return 0, data, b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    size = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while len(body) < size:
        body += connection.recv(65536)
    return int(head.split()[1]), head.decode(), body


def ends(connection):
    """Whether the server closes the connection, rather than that the wait ends."""
    try:
        while connection.recv(65536):
            pass
        return True
    except ConnectionResetError:
        return True
    except socket.timeout:
        return False


# ---- socket files


def test_http_over_a_socket_file(tmp_path):
    path = str(tmp_path / "http.sock")

    def get():
        with httpx.Client(transport=httpx.HTTPTransport(uds=path)) as client:
            return client.get("http://localhost/v1/models").status_code

    with Daemon("--http-listen", f"unix:{path}") as daemon:
        assert get() == 200
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
        assert f"unix:{path}" in daemon.log
        refused("--http-listen", f"unix:{path}", words=(path, "taken"))
        assert get() == 200  # the second one has not taken it away
        daemon.process.kill()
        daemon.wait()
    assert os.path.exists(path)  # left behind
    with Daemon("--http-listen", f"unix:{path}") as daemon:
        assert get() == 200
        assert daemon.stop() == 0
    assert not os.path.exists(path)


def test_a_socket_file_does_not_replace_other_files(tmp_path):
    path = tmp_path / "data"
    path.write_text("mine")
    refused("--http-listen", f"unix:{path}", words=(str(path), "not a socket"))
    assert path.read_text() == "mine"


# ---- Admin's own listener


def test_admin_has_its_own_listener(pb):
    admin_port = free_port()
    with Daemon("--admin-listen", f"127.0.0.1:{admin_port}") as daemon:
        with grpc.insecure_channel(daemon.grpc) as main, grpc.insecure_channel(f"127.0.0.1:{admin_port}") as own:
            stats = pb.admin.GetStatsRequest()
            with pytest.raises(grpc.RpcError) as unknown:
                pb.admin_grpc.AdminStub(main).GetStats(stats, timeout=20)
            assert unknown.value.code() == grpc.StatusCode.UNIMPLEMENTED
            assert pb.admin_grpc.AdminStub(own).GetStats(stats, timeout=20) is not None
            with pytest.raises(grpc.RpcError) as elsewhere:
                pb.inference_grpc.InferenceStub(own).GetModelInfo(pb.inference.GetModelInfoRequest(), timeout=20)
            assert elsewhere.value.code() == grpc.StatusCode.UNIMPLEMENTED
            from grpc_health.v1 import health_pb2, health_pb2_grpc
            for channel in (main, own):
                check = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
                assert check.status == health_pb2.HealthCheckResponse.SERVING
        assert daemon.get("/metrics")[0] == 200
        assert daemon.stop() == 0


# ---- CORS


def test_pages_are_let_in_by_name_only():
    ask = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST",
           "Access-Control-Request-Headers": "authorization,content-type"}
    with Daemon("--cors-origin", "https://app.example") as daemon:
        status, headers, _ = daemon.request("OPTIONS", "/v1/chat/completions", headers=ask)
        assert status == 204 and headers["Access-Control-Allow-Origin"] == "https://app.example"
        assert "authorization" in headers["Access-Control-Allow-Headers"]
        status, headers, _ = daemon.request("OPTIONS", "/v1/chat/completions", headers={**ask, "Origin": "https://b.example"})
        assert "Access-Control-Allow-Origin" not in headers
    refused("--http-listen", f"127.0.0.1:{free_port()}", "--cors-origin", "app.example", words=("--cors-origin", "app.example"))


def test_no_page_is_let_in_by_default(daemon):
    _, headers, _ = daemon.request("GET", "/version", headers={"Origin": "https://app.example"})
    assert not [name for name in headers if name.lower().startswith("access-control")]


# ---- slow clients


@pytest.fixture(scope="module")
def hasty():
    with Daemon("--transfer-timeout", "1", "--idle-timeout", "2", "--max-head-bytes", "4096", "--max-connections", "20") as running:
        yield running
        assert running.stop() == 0, running.log


def drip(connection, data, stop, step=1):
    for start in range(0, len(data), step):
        if stop.is_set():
            return
        try:
            connection.sendall(data[start:start + step])
        except OSError:
            return
        time.sleep(0.02)


@pytest.mark.parametrize("what", ["head", "body", "chunks", "blank lines"])
def test_a_client_that_drips_is_given_up(hasty, what):
    post = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    begin, rest, status = {
        "head": (b"", b"GET /version HTTP/1.1\r\nX-Long: " + b"a" * 4000, 408),
        "body": (post + b"Content-Length: 4000\r\n\r\n", b" " * 4000, 408),
        "chunks": (post + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 1000, 408),
        "blank lines": (b"", b"\r\n" * 2000, 0),  # no request: an idle connection, whose time it does not renew
    }[what]
    stop = threading.Event()
    with connect(hasty) as connection:
        connection.sendall(begin)
        dripping = threading.Thread(target=drip, args=(connection, rest, stop))
        dripping.start()
        try:
            assert read_answer(connection)[0] == status
            assert ends(connection)
        finally:
            stop.set()
            dripping.join()


def test_idle_connections_end_used_or_not(hasty):
    with connect(hasty) as used, connect(hasty) as unused:
        used.sendall(GET)
        assert read_answer(used)[0] == 200
        assert ends(used) and ends(unused)


def test_blank_lines_between_requests_are_passed_over(hasty):
    with connect(hasty) as connection:
        for _ in range(3):
            connection.sendall(b"\r\n\r\n" + GET + b"\r\n")
            assert read_answer(connection)[0] == 200


def test_heads_and_connections_have_limits(hasty):
    with connect(hasty) as connection:
        connection.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 5000 + b"\r\n\r\n")
        assert read_answer(connection)[0] == 431
    held = [connect(hasty) for _ in range(40)]
    statuses = []
    for connection in held:
        try:
            connection.sendall(GET)
            statuses.append(read_answer(connection)[0])
        except OSError:
            statuses.append(0)
    for connection in held:
        connection.close()
    assert statuses.count(200) <= 20 and statuses.count(200) + statuses.count(503) + statuses.count(0) == 40
    assert statuses.count(503) > 0
    deadline = time.monotonic() + 20
    while True:  # the closed ones make room
        with connect(hasty) as connection:
            connection.sendall(GET)
            if read_answer(connection)[0] == 200:
                return
        assert time.monotonic() < deadline


@pytest.mark.parametrize("what", [b"", b"\r\n", b"GET /ver", b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n "])
def test_a_drain_does_not_wait_for_requests_that_never_come(what):
    with Daemon("--transfer-timeout", "2") as daemon:
        connections = [connect(daemon) for _ in range(5)]
        for connection in connections:
            connection.sendall(what)
        time.sleep(0.1)
        daemon.signal(signal.SIGTERM)
        assert daemon.wait(20) == 0
        for connection in connections:
            connection.close()


# ---- many connections


def rss_mb(daemon):
    with open(f"/proc/{daemon.process.pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_5000_idle_connections_are_held_in_100_mb():
    count = 5000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * count:
        pytest.skip(f"only {hard} files may be open")
    # The daemon starts with few, as a login shell gives, and raises that itself.
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    with Daemon("--idle-timeout", "600") as daemon:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        connections = []
        try:
            daemon.post("/v1/completions", {"prompt": "a", "max_tokens": 2})
            before = rss_mb(daemon)
            body = json.dumps({"text": "Hello"}).encode()
            request = (b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
                       + str(len(body)).encode() + b"\r\n\r\n" + body)
            for _ in range(count):
                connection = connect(daemon)
                connections.append(connection)
                connection.sendall(request)
                assert read_answer(connection)[0] in (200, 400)
            grown = rss_mb(daemon) - before
            print(f"{count} idle connections: {grown:.1f} MB")
            assert grown < 100
            for connection in connections[::100]:
                connection.sendall(GET)
                assert read_answer(connection)[0] == 200
        finally:
            for connection in connections:
                connection.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert daemon.stop() == 0


# ---- the trace of a request


def test_a_trace_reaches_the_receipt(stub, pb):
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    request = pb.inference.GenerateRequest(text="a", stopping=pb.inference.Stopping(max_tokens=2))
    finished = [event.finished for event in stub.Generate(request, metadata=[("traceparent", trace)])
                if event.HasField("finished")]
    assert finished[0].receipt.trace_parent == trace
    finished = [event.finished for event in stub.Generate(request, metadata=[("traceparent", "00-x")])
                if event.HasField("finished")]
    assert finished[0].receipt.trace_parent == ""
