"""API keys: who may call what over gRPC and HTTP, with which limits, and what a reload changes."""
import concurrent.futures
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

import grpc
import pytest

import tiny_model
from daemon import Daemon, free_port, program, run

SCOPES = ("infer", "tokenize", "metrics", "admin")


def make_key(name, scopes="infer", limits=""):
    """(secret, line) of a new key, made as an operator makes it."""
    made = run("fastgend", "--make-api-key", name, "--scopes", scopes)
    assert made.returncode == 0, made.stderr
    return re.fullmatch(rf"the key of {name}, shown only now: (fgk_\S+)\n", made.stderr)[1], made.stdout.strip() + " " + limits


class Keys:
    """A file of keys and the secrets that belong to it."""

    def __init__(self, path, **keys):
        self.path, self.secrets, self.lines = str(path), {}, {}
        for name, (scopes, limits) in keys.items():
            self.secrets[name], self.lines[name] = make_key(name, scopes, limits)
        self.write()

    def write(self, text=None):
        with open(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
            out.write("# who may call\n" + "\n".join(self.lines.values()) + "\n" if text is None else text)

    def bearer(self, name):
        return {"Authorization": "Bearer " + self.secrets[name]}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model.write(str(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="module")
def keyed(model, tmp_path_factory):
    keys = Keys(tmp_path_factory.mktemp("keys") / "keys", **{scope: (scope, "") for scope in SCOPES},
                other=("infer", ""), two=("infer", "max-concurrent=2"), metered=("infer", "tokens-per-minute=200"),
                few=("infer,tokenize", "max-concurrent=3"))
    with Daemon("--model", model, "--api-keys", keys.path) as daemon:
        daemon.keys = keys
        yield daemon
        assert daemon.stop() == 0, daemon.log
        for secret in keys.secrets.values():
            assert secret not in daemon.log
        assert "shibboleth" not in daemon.log  # what the prompts below hold


def completion(tokens=4, **fields):
    return {"prompt": "shibboleth", "max_tokens": tokens, "ignore_eos": True, **fields}


def http_error(answer):
    status, headers, body = answer
    return status, json.loads(body)["error"]


# ---- the tables: who may call what

RPCS = {  # method: (service, request type, scopes)
    "Generate": ("Inference", "GenerateRequest", "infer"), "Attach": ("Inference", "AttachRequest", "infer"),
    "Cancel": ("Inference", "CancelRequest", "infer admin"), "Plan": ("Inference", "PlanRequest", "infer tokenize"),
    "Tokenize": ("Inference", "TokenizeRequest", "infer tokenize"), "Detokenize": ("Inference", "DetokenizeRequest", "infer tokenize"),
    "RenderChat": ("Inference", "RenderChatRequest", "infer tokenize"),
    "GetModelInfo": ("Inference", "GetModelInfoRequest", " ".join(SCOPES)),
    "GetStats": ("Admin", "GetStatsRequest", "metrics admin"), "GetMetrics": ("Admin", "GetMetricsRequest", "metrics admin"),
    **{method: ("Admin", method + "Request", "admin") for method in (
        "ListRequests", "StartProfile", "StopProfile", "FlushPrefixCache", "Pause", "Resume", "Sleep", "WakeUp", "UpdateWeights", "Drain")},
}


def rpc_status(pb, channel, method, metadata):
    service, request, _ = RPCS[method]
    messages, stubs = (pb.inference, pb.inference_grpc) if service == "Inference" else (pb.admin, pb.admin_grpc)
    call = getattr(getattr(stubs, service + "Stub")(channel), method)
    try:
        answer = call(getattr(messages, request)(), metadata=metadata, timeout=30)
        if method in ("Generate", "Attach"):
            list(answer)
        return grpc.StatusCode.OK, ""
    except grpc.RpcError as error:
        return error.code(), error.details()


def test_the_table_of_calls_is_whole(pb):
    services = [pb.inference.DESCRIPTOR.services_by_name["Inference"], pb.admin.DESCRIPTOR.services_by_name["Admin"]]
    assert set(RPCS) == {method.name for service in services for method in service.methods}


def test_every_call_asks_for_a_key_with_its_scope(pb, keyed):
    secrets = keyed.keys.secrets
    with grpc.insecure_channel(keyed.grpc) as channel:
        for method, (_, _, scopes) in RPCS.items():
            for metadata in ((), (("authorization", "Bearer fgk_wrong"),), (("x-api-key", "fgk_wrong"),), (("authorization", secrets["infer"]),)):
                assert rpc_status(pb, channel, method, metadata)[0] == grpc.StatusCode.UNAUTHENTICATED, method
            for scope in SCOPES:
                allowed = scope in scopes.split()
                if method == "Drain" and allowed:
                    continue  # it would end the daemon; the others' refusals are tested
                for metadata in ((("authorization", "Bearer " + secrets[scope]),), (("x-api-key", secrets[scope]),)):
                    code, details = rpc_status(pb, channel, method, metadata)
                    assert code != grpc.StatusCode.UNAUTHENTICATED, (method, scope)
                    assert (code != grpc.StatusCode.PERMISSION_DENIED) == allowed, (method, scope, code)
                    if not allowed:
                        assert details.startswith(f"the API key {scope} lacks the scope "), details


def test_health_and_reflection_need_no_key(keyed):
    # Written by hand: the health service's stubs are in no package that the tests install.
    with grpc.insecure_channel(keyed.grpc) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=30) == b"\x08\x01"  # SERVING
        reflect = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        answer = next(reflect(iter([b"\x3a\x01*"]), timeout=30))  # list_services: "*"
        assert b"fastgen.v1.Inference" in answer


ROUTES = [  # method, path, body, scopes; "" is public
    ("GET", "/health", None, ""), ("GET", "/version", None, ""), ("GET", "/nothing", None, ""), ("GET", "/", None, ""),
    ("POST", "/completions", completion(1), "infer"),
    ("POST", "/completions", completion(1, stream=True), "infer"),
    ("POST", "/completions", {"prompt": ["shibboleth", "b"], "max_tokens": 1}, "infer"),
    ("POST", "/chat/completions", {"messages": [{"role": "user", "content": "shibboleth"}], "max_tokens": 1}, "infer"),
    ("POST", "/cancel", {"request_id": "none"}, "infer admin"),
    ("POST", "/tokenize", {"prompt": "shibboleth"}, "infer tokenize"),
    ("POST", "/tokenize", {"messages": [{"role": "user", "content": "a"}]}, "infer tokenize"),
    ("POST", "/detokenize", {"tokens": [3, 4]}, "infer tokenize"),
    ("GET", "/models", None, " ".join(SCOPES)), ("GET", "/models/tiny", None, " ".join(SCOPES)), ("GET", "/models/none", None, " ".join(SCOPES)),
    ("POST", "/responses", {"model": "m", "input": "shibboleth", "max_output_tokens": 1}, "infer"),
    ("POST", "/messages", {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "a"}]}, "infer"),
    ("POST", "/messages/count_tokens", {"model": "m", "messages": [{"role": "user", "content": "a"}]}, "infer tokenize"),
    ("POST", "/chat/completions/input_tokens", {"messages": [{"role": "user", "content": "a"}]}, "infer tokenize"),
    ("POST", "/apply-template", {"messages": [{"role": "user", "content": "a"}]}, "infer tokenize"),
    ("GET", "/tokenizer_info", None, " ".join(SCOPES)),
    ("GET", "/metrics", None, "metrics admin"), ("GET", "/openapi.json", None, ""),
    # Bad requests: a stranger is told so before anything is read.
    ("POST", "/completions", b"{", "infer"), ("POST", "/chat/completions", {"messages": 3}, "infer"), ("POST", "/tokenize", b"\xff", "infer tokenize"),
]


def check_routes(request, secrets):
    for method, path, body, scopes in ROUTES:
        for prefix in ("", "/v1"):
            row = (method, prefix + path, body)
            for headers in ({}, {"Authorization": "Bearer fgk_wrong"}, {"x-api-key": "fgk_wrong"}, {"Authorization": "Basic Zm9v"}):
                status, answered, data = request(*row, headers)
                if not scopes:
                    assert status in (200, 404, 501), (row, status)
                    continue
                assert status == 401, (row, headers, status, data)
                assert answered["WWW-Authenticate"] == "Bearer", (row, dict(answered))
                assert json.loads(data)["error"]["type"] == "authentication_error"
                assert json.loads(data)["error"].get("code", "invalid_api_key") == "invalid_api_key"  # Anthropic's has none
            for scope in SCOPES:
                allowed = not scopes or scope in scopes.split()
                for headers in ({"Authorization": "Bearer " + secrets[scope]}, {"x-api-key": secrets[scope]}):
                    status, _, data = request(*row, headers)
                    assert status != 401, (row, scope)
                    if isinstance(body, bytes) or body == {"messages": 3}:
                        assert status in (400, 403), (row, scope, status)  # what is wrong with it, its sender may know
                        continue
                    assert (status != 403) == allowed, (row, scope, status, data)
                    if not allowed:
                        error = json.loads(data)["error"]
                        assert error["type"] == "permission_error" and f"the API key {scope} lacks the scope" in error["message"]


def test_every_route_asks_for_a_key_with_its_scope(keyed):
    check_routes(keyed.request, keyed.keys.secrets)


def test_clients_from_pypi_show_their_keys(keyed):
    from openai import AuthenticationError, OpenAI, PermissionDeniedError
    arguments = {"model": "m", "messages": [{"role": "user", "content": "shibboleth"}], "max_tokens": 2}

    def chat(key):
        return OpenAI(base_url=keyed.http + "/v1", api_key=key, max_retries=0).chat.completions.create(**arguments)
    with pytest.raises(AuthenticationError, match="this API key is not known here"):
        chat("foo")
    with pytest.raises(PermissionDeniedError, match="the API key metrics lacks the scope infer"):
        chat(keyed.keys.secrets["metrics"])
    try:
        chat(keyed.keys.secrets["infer"])
    except Exception as error:  # noqa: BLE001 - the tiny model may have no chat template
        assert "template" in str(error), error


def test_fgchat_shows_its_key(keyed):
    def chat(key, how):
        env = {"FASTGEN_API_KEY": key} if how == "env" else {}
        flags = ["--api-key", key] if how == "flag" else []
        return run("fgchat", "--connect", keyed.grpc, *flags, stdin="/q\n", env=env)
    for how in ("env", "flag"):
        assert chat(keyed.keys.secrets["infer"], how).returncode == 0
        refused = chat("fgk_wrong", how)
        assert refused.returncode == 1 and "not known here" in refused.stderr and "FASTGEN_API_KEY" in refused.stderr
    assert "an API key is needed" in run("fgchat", "--connect", keyed.grpc, stdin="/q\n").stderr
    odd = chat("a\tb", "flag")
    assert odd.returncode == 1 and "printable ASCII" in odd.stderr


# ---- a gateway of its own

def test_a_gateway_elsewhere_passes_the_key_on_and_keeps_none(keyed):
    port = free_port()
    gateway = subprocess.Popen([program("fastgen-gateway"), "--listen", f"127.0.0.1:{port}", "--connect", keyed.grpc],
                               stderr=subprocess.PIPE, text=True)
    try:
        def request(method, path, body=None, headers=None):
            data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
            call = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data, method=method,
                                          headers={"Content-Type": "application/json", **(headers or {})})
            try:
                with urllib.request.urlopen(call, timeout=60) as answer:
                    return answer.status, answer.headers, answer.read()
            except urllib.error.HTTPError as error:
                return error.code, error.headers, error.read()
        deadline = time.monotonic() + 30
        while True:
            try:
                assert request("GET", "/health")[0] == 200
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        for headers, status in (({}, 401), ({"x-api-key": "no"}, 401), (keyed.keys.bearer("metrics"), 403), (keyed.keys.bearer("infer"), 200)):
            got, answered, _ = request("POST", "/v1/completions", completion(1), headers)
            assert got == status
            assert answered["WWW-Authenticate"] == ("Bearer" if status == 401 else None)
        # The key of the call before is not used for this one.
        assert request("GET", "/v1/models")[0] == 401
        assert request("GET", "/metrics", headers=keyed.keys.bearer("metrics"))[0] == 200
    finally:
        gateway.send_signal(signal.SIGTERM)
        _, log = gateway.communicate(timeout=30)
    for secret in keyed.keys.secrets.values():
        assert secret not in log


# ---- limits

def test_concurrency_is_counted_exactly(pb, keyed):
    """Of many that begin together, while none can end, as many run as the key may have."""
    owner = (("authorization", "Bearer " + keyed.keys.secrets["two"]),)
    admin_owner = (("authorization", "Bearer " + keyed.keys.secrets["admin"]),)
    with grpc.insecure_channel(keyed.grpc) as channel:
        stub, admin = pb.inference_grpc.InferenceStub(channel), pb.admin_grpc.AdminStub(channel)
        admin.Pause(pb.admin.PauseRequest(), metadata=admin_owner)
        try:
            request = pb.inference.GenerateRequest(text="shibboleth")
            request.stopping.max_tokens, request.stopping.ignore_eos = 4, True
            calls = [stub.Generate(request, metadata=owner, timeout=60) for _ in range(40)]

            def outcome(call):
                try:
                    next(call)
                    return "live"
                except grpc.RpcError as error:
                    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
                    assert error.details() == "the API key two has 2 requests live; its max-concurrent is 2"
                    return "refused"
            with concurrent.futures.ThreadPoolExecutor(40) as pool:
                outcomes = list(pool.map(outcome, calls))
            assert outcomes.count("live") == 2 and outcomes.count("refused") == 38
            listed = admin.ListRequests(pb.admin.ListRequestsRequest(), metadata=admin_owner).requests
            assert [entry.key_name for entry in listed] == ["two", "two"]
            # Over HTTP it is the same key, and others have their own places.
            status, headers, body = keyed.request("POST", "/v1/completions", completion(1), keyed.keys.bearer("two"))
            assert status == 429 and int(headers["Retry-After"]) >= 1
            assert json.loads(body)["error"]["type"] == "rate_limit_error" and "max-concurrent is 2" in json.loads(body)["error"]["message"]
        finally:
            admin.Resume(pb.admin.ResumeRequest(), metadata=admin_owner)
        for call, how in zip(calls, outcomes):
            if how == "live":
                list(call)
    for _ in range(5):  # one after the other, each place is free again
        assert keyed.request("POST", "/v1/completions", completion(2), keyed.keys.bearer("two"))[0] == 200


def test_a_client_that_vanishes_leaves_its_place(keyed):
    body = json.dumps(completion(200, stream=True)).encode()
    for _ in range(6):
        with socket.create_connection(("127.0.0.1", keyed.http_port)) as connection:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nx-api-key: " +
                               keyed.keys.secrets["few"].encode() + b"\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body)
            connection.recv(100)
    deadline = time.monotonic() + 60
    prompts = {"prompt": ["a", "b", "c"], "max_tokens": 2}  # needs all three places
    while True:
        status, _, data = keyed.request("POST", "/v1/completions", prompts, keyed.keys.bearer("few"))
        if status == 200:
            break
        assert status == 429 and time.monotonic() < deadline, (status, data)
        time.sleep(0.05)
    # A list of prompts is as many requests: four never fit.
    status, error = http_error(keyed.request("POST", "/v1/completions", {"prompt": ["a", "b", "c", "d"], "max_tokens": 50, "ignore_eos": True},
                                             keyed.keys.bearer("few")))
    assert status == 429 and "max-concurrent is 3" in error["message"]


def test_tokens_are_counted_and_waited_for(keyed):
    used, status = 0, 200
    while status == 200:
        assert used < 600, "never refused"
        status, headers, body = keyed.request("POST", "/v1/completions", completion(60), keyed.keys.bearer("metered"))
        if status == 200:
            used += json.loads(body)["usage"]["total_tokens"]
    assert used >= 200  # not refused before the allowance is used
    assert status == 429
    assert json.loads(body)["error"]["message"] == "the API key metered has used its tokens; its tokens-per-minute is 200"
    assert 1 <= int(headers["Retry-After"]) <= 60 * used / 200
    assert keyed.request("POST", "/v1/completions", completion(1), keyed.keys.bearer("infer"))[0] == 200


# ---- requests of others

def test_another_key_can_neither_see_nor_end_a_request(pb, keyed):
    owner, other, admin_owner = ((("authorization", "Bearer " + keyed.keys.secrets[name]),) for name in ("infer", "other", "admin"))
    with grpc.insecure_channel(keyed.grpc) as channel:
        stub, admin = pb.inference_grpc.InferenceStub(channel), pb.admin_grpc.AdminStub(channel)

        def attach(request_id, metadata):
            try:
                return [event.WhichOneof("event") for event in
                        stub.Attach(pb.inference.AttachRequest(request_id=request_id), metadata=metadata, timeout=30)]
            except grpc.RpcError as error:
                return error.code(), error.details().replace(request_id, "ID")
        admin.Pause(pb.admin.PauseRequest(), metadata=admin_owner)
        try:
            request = pb.inference.GenerateRequest(text="shibboleth", request_id="r-1")
            request.stopping.max_tokens, request.stopping.ignore_eos = 3, True
            request.resume_window.seconds = 60
            mine = stub.Generate(request, metadata=owner, timeout=60)
            assert next(mine).accepted.request_id == "r-1"
            # Another's request looks like none, and its id is free to take.
            assert attach("r-1", other) == attach("never", other) and attach("r-1", other)[0] == grpc.StatusCode.NOT_FOUND
            cancelled = stub.Cancel(pb.inference.CancelRequest(request_ids=["r-1", "never"]), metadata=other)
            assert list(cancelled.cancelled) == [] and list(cancelled.not_found) == ["r-1", "never"]
            statuses = [keyed.request("GET", f"/v1/streams/{name}", headers=keyed.keys.bearer("other")) for name in ("r-1", "never")]
            assert {status for status, _, _ in statuses} == {404}
            assert statuses[0][2].replace(b"r-1", b"ID") == statuses[1][2].replace(b"never", b"ID")
            theirs = stub.Generate(request, metadata=other, timeout=60)
            assert next(theirs).accepted.request_id == "r-1"
            listed = admin.ListRequests(pb.admin.ListRequestsRequest(), metadata=admin_owner).requests
            assert sorted((entry.request_id, entry.key_name) for entry in listed) == [("r-1", "infer"), ("r-1", "other")]
        finally:
            admin.Resume(pb.admin.ResumeRequest(), metadata=admin_owner)
        assert list(mine)[-1].HasField("finished") and list(theirs)[-1].HasField("finished")
        # After the end, in its window: for its owner only.
        assert attach("r-1", owner)[-1] == "finished"
        stub.Cancel(pb.inference.CancelRequest(request_ids=["r-1"]), metadata=other)  # forgets what is left of other's
        assert attach("r-1", other)[0] == grpc.StatusCode.NOT_FOUND
        assert attach("r-1", owner)[-1] == "finished"


def test_streams_over_http_are_their_owners(keyed):
    window = {"X-Request-Id": "shared-id", "X-Fastgen-Resume-Window": "60"}
    texts = {}
    for name, tokens in (("infer", 5), ("other", 9)):
        status, _, body = keyed.request("POST", "/v1/completions", completion(tokens, stream=True, model="model-of-" + name),
                                        {**window, **keyed.keys.bearer(name)})
        assert status == 200
        texts[name] = body
    for name in ("infer", "other"):
        status, _, body = keyed.request("GET", "/v1/streams/shared-id", headers=keyed.keys.bearer(name))
        assert status == 200 and b"model-of-" + name.encode() in body
        assert b"model-of-" + {"infer": b"other", "other": b"infer"}[name] not in body
    strangers = [http_error(keyed.request("GET", f"/v1/streams/{name}", headers=keyed.keys.bearer("few")))
                 for name in ("shared-id", "unknown-id")]
    assert str(strangers[0]).replace("shared-id", "ID") == str(strangers[1]).replace("unknown-id", "ID")


def test_an_admin_may_end_any_request(pb, keyed):
    admin_owner = (("authorization", "Bearer " + keyed.keys.secrets["admin"]),)
    with grpc.insecure_channel(keyed.grpc) as channel:
        stub, admin = pb.inference_grpc.InferenceStub(channel), pb.admin_grpc.AdminStub(channel)
        admin.Pause(pb.admin.PauseRequest(), metadata=admin_owner)
        try:
            request = pb.inference.GenerateRequest(text="shibboleth", request_id="r-2")
            call = stub.Generate(request, metadata=(("x-api-key", keyed.keys.secrets["infer"]),), timeout=60)
            next(call)
            status, body = keyed.post("/v1/cancel", {"request_id": "r-2"}, keyed.keys.bearer("admin"))
            assert status == 200 and body["cancelled"] == ["r-2"]
        finally:
            admin.Resume(pb.admin.ResumeRequest(), metadata=admin_owner)
        with pytest.raises(grpc.RpcError) as error:
            list(call)
        assert error.value.code() == grpc.StatusCode.CANCELLED


# ---- the file

def test_sighup_reads_the_keys_again(model, tmp_path):
    keys = Keys(tmp_path / "keys", alice=("infer", ""), bob=("infer", ""))
    with Daemon("--model", model, "--api-keys", keys.path) as daemon:
        def status(name):
            return daemon.request("POST", "/v1/completions", completion(1), keys.bearer(name))[0]
        assert status("alice") == status("bob") == 200
        old = keys.secrets["alice"]
        keys.secrets["alice"], keys.lines["alice"] = make_key("alice", "infer")
        del keys.lines["bob"]
        keys.write()
        assert status("bob") == 200  # nothing changes before the signal
        daemon.signal(signal.SIGHUP)
        daemon.wait_line("API keys: 1 in ")
        assert status("alice") == 200 and status("bob") == 401
        assert daemon.request("POST", "/v1/completions", completion(1), {"x-api-key": old})[0] == 401
        # A bad file changes nothing, and the log says in one line where it is bad, without what stood there.
        secret = keys.secrets["alice"]
        for bad in ("", f"alice {secret} infer\n", "alice\n"):
            keys.write(bad)
            before = len(daemon.lines)
            daemon.signal(signal.SIGHUP)
            daemon.wait_line("the API keys stay as they were")
            deadline = time.monotonic() + 10
            while not any("stay as they were" in line for line in daemon.lines[before:]):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert status("alice") == 200
        assert any(f"{keys.path}:1: the second word must be sha256:" in line for line in daemon.lines)
        os.remove(keys.path)
        daemon.signal(signal.SIGHUP)
        daemon.wait_line("No such file or directory; the API keys stay as they were")
        assert status("alice") == 200
        assert daemon.stop() == 0
        assert secret not in daemon.log and old not in daemon.log
        # One line a request, with the key's name.
        assert re.search(r"request \S+ of key alice: \d+ \+ 1 tokens in \S+, OK\n", daemon.log)


def test_reloads_under_load_lose_no_call(model, tmp_path):
    keys = Keys(tmp_path / "keys", alice=("infer", ""))
    with Daemon("--model", model, "--api-keys", keys.path) as daemon:
        stop, wrong = threading.Event(), []

        def call(headers, expected):
            while not stop.is_set():
                status = daemon.request("POST", "/v1/completions", completion(1), headers)[0]
                if status != expected:
                    wrong.append(status)
        threads = [threading.Thread(target=call, args=arguments) for arguments in (
            (keys.bearer("alice"), 200), (keys.bearer("alice"), 200), ({"x-api-key": "fgk_wrong"}, 401))]
        for thread in threads:
            thread.start()
        for _ in range(50):
            daemon.signal(signal.SIGHUP)
            time.sleep(0.02)
        stop.set()
        for thread in threads:
            thread.join()
        assert wrong == [] and daemon.alive()


def test_a_bad_file_of_keys_is_one_line_and_exit_code_1(model, tmp_path):
    path = tmp_path / "keys"
    for text, words in (("alice\n", ":1: a key is a name, sha256:HASH and its scopes"), ("", ": holds no key"), (None, ": No such file")):
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_text(text)
        ended = run("fastgend", "--model", model, "--grpc-listen", f"127.0.0.1:{free_port()}", "--api-keys", str(path))
        assert ended.returncode == 1
        assert f"fastgend: --api-keys {path}{words}" in ended.stderr.strip().splitlines()[-1]


def test_a_file_that_others_may_read_is_warned_of(model, tmp_path):
    keys = Keys(tmp_path / "keys", alice=("infer", ""))
    os.chmod(keys.path, 0o644)
    with Daemon("--model", model, "--api-keys", keys.path) as daemon:
        assert "others may read it: chmod 600" in daemon.log


def test_a_new_key_is_shown_once_and_its_line_is_a_file(tmp_path):
    secret, line = make_key("alice", "infer,admin")
    assert secret not in line and re.fullmatch(r"alice sha256:[0-9a-f]{64} infer,admin ", line)
    assert make_key("alice")[0] != secret
    for arguments, words in ((["--make-api-key", "a b"], "a name is 1 to 64"), (["--make-api-key", "a", "--scopes", "chat"], "scope \"chat\" is none of"),
                             (["--scopes", "infer"], "--make-api-key")):
        ended = run("fastgend", *arguments)
        assert ended.returncode == 1 and words in ended.stderr and len(ended.stderr.strip().splitlines()) == 1, ended.stderr
        assert ended.stdout == ""


def test_without_a_file_of_keys_nothing_is_asked(model):
    with Daemon("--model", model) as daemon:
        assert daemon.request("POST", "/v1/completions", completion(1), {"Authorization": "Bearer foo"})[0] == 200
        assert daemon.request("GET", "/metrics")[0] == 200
        assert "of key" not in daemon.log
