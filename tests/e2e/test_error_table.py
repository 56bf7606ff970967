"""Each row of the error table (server/gateway/errors.cc, docs/api.md) provoked live, over gRPC and over HTTP.

One fact has one status in both: the gRPC status with its google.rpc details, and the HTTP status, type and code that the
table gives for it. What only one side can meet, or nobody may, stands in NOT_LIVE with its reason.
"""
import contextlib
import json
import os
import re
import signal
import threading
import time

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

import tiny_model
from daemon import Daemon
from test_errors import CHAT, COMPLETIONS, HELLO, check_error, full_daemon, generate, refused
from test_grpc import details
from test_keys import Keys

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "server", "gateway", "errors.cc")
LIVE = {}  # status: the test that provokes it
NOT_LIVE = {
    "CANCELLED": "over HTTP a request that was cancelled has its answer so far; gRPC: test_grpc.py",
    "UNKNOWN": "an error of ours: tests/server/gateway/errors_test.cc",
    "INTERNAL": "an error of ours: tests/server/gateway/errors_test.cc",
    "DATA_LOSS": "an error of ours: tests/server/gateway/errors_test.cc",
}
# What the details of a status must hold.
NEEDS = {"INVALID_ARGUMENT": error_details_pb2.BadRequest, "RESOURCE_EXHAUSTED": error_details_pb2.RetryInfo,
         "UNAVAILABLE": error_details_pb2.RetryInfo}


def provokes(code):
    def note(test):
        LIVE[code] = test.__name__
        return test
    return note


def table():
    """{status: (HTTP status, code, seconds of Retry-After)} as the source has it."""
    with open(SOURCE, encoding="utf-8") as file:
        rows = re.findall(r'\{grpc::StatusCode::(\w+), (\d+), "(\w+)", (\d+)\}', file.read())
    assert len(rows) == 16
    return {code: (int(status), name, int(retry)) for code, status, name, retry in rows}


def check_row(code, error, answer, http_code=None):
    """The gRPC error and the HTTP answer (status, headers, body) are those of the row."""
    status, name, retry = table()[code]
    assert error.code() == getattr(grpc.StatusCode, code), error
    rich = [status_pb2.Status.FromString(value) for key, value in error.trailing_metadata() if key == "grpc-status-details-bin"]
    assert [(r.code, r.message) for r in rich] == [(error.code().value[0], error.details())]
    if code in NEEDS:
        assert details(error, NEEDS[code]) is not None, error
    said = check_error(answer[0], answer[2], status)
    assert said["code"] == (http_code or name), said
    assert ("Retry-After" in answer[1]) == (retry > 0)
    if retry:
        assert int(answer[1]["Retry-After"]) >= 1
    return said


def stub_of(pb, daemon, stack):
    return pb.inference_grpc.InferenceStub(stack.enter_context(grpc.insecure_channel(daemon.grpc)))


@provokes("INVALID_ARGUMENT")
def test_a_value_that_cannot_be(daemon, stub, pb):
    error = refused(stub.Generate, generate(pb, sampling=pb.inference.Sampling(top_p=2)))
    said = check_row("INVALID_ARGUMENT", error, daemon.request("POST", COMPLETIONS, {"prompt": "a", "top_p": 2}))
    assert said["param"] == "top_p"
    (violation,) = details(error, error_details_pb2.BadRequest).field_violations
    assert violation.field == "sampling.top_p" and violation.description in said["message"]


def test_a_prompt_beyond_the_context(daemon, stub, pb):
    error = refused(stub.Generate, generate(pb, text="word " * 9000))
    check_row("INVALID_ARGUMENT", error, daemon.request("POST", COMPLETIONS, {"prompt": "word " * 9000}), "context_length_exceeded")
    info = details(error, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == ("CONTEXT_LENGTH_EXCEEDED", "fastgen")


@provokes("ALREADY_EXISTS")
def test_an_id_in_use(daemon, stub, pb):
    live = generate(pb, request_id="table-live")
    live.stopping.max_tokens, live.stopping.ignore_eos = 4000, True
    stream = stub.Generate(live)
    next(stream)
    error = refused(stub.Generate, live)
    answer = daemon.request("POST", COMPLETIONS, {"prompt": "a", "request_id": "table-live", "max_tokens": 1})
    stream.cancel()
    check_row("ALREADY_EXISTS", error, answer)


@provokes("DEADLINE_EXCEEDED")
def test_an_answer_that_comes_too_late(daemon, stub, pb):
    long = generate(pb)
    long.stopping.max_tokens, long.stopping.ignore_eos = 4000, True
    with pytest.raises(grpc.RpcError) as error:
        list(stub.Generate(long, timeout=0.5))
    body = {"prompt": "a", "max_tokens": 4000, "ignore_eos": True}
    began = time.monotonic()
    check_row("DEADLINE_EXCEEDED", error.value, daemon.request("POST", COMPLETIONS, body, headers={"X-Fastgen-Timeout": "0.5"}))
    assert time.monotonic() - began < 20
    # A stream that has begun says it in an event.
    status, _, text = daemon.request("POST", COMPLETIONS, {**body, "stream": True}, headers={"X-Fastgen-Timeout": "0.5"})
    assert status == 200 and '"code":"deadline_exceeded"' in str(text), text[-500:]
    for wrong in ("0", "-1", "soon", "1e9", "nan", "1 s"):
        status, _, answer = daemon.request("POST", COMPLETIONS, body, headers={"X-Fastgen-Timeout": wrong})
        assert check_error(status, answer, 400)["param"] == "X-Fastgen-Timeout"


@provokes("NOT_FOUND")
def test_a_model_or_stream_that_is_not_there(daemon, stub, pb, tmp_path):
    error = refused(stub.Attach, pb.inference.AttachRequest(request_id="never"))
    check_row("NOT_FOUND", error, daemon.request("GET", "/v1/streams/never"), "stream_not_found")
    with Daemon("--model", tiny_model.write(str(tmp_path / "tiny")), "--strict-model") as own, contextlib.ExitStack() as stack:
        error = refused(stub_of(pb, own, stack).Generate, generate(pb, model="other"))
        check_row("NOT_FOUND", error, own.request("POST", COMPLETIONS, {"prompt": "a", "model": "other"}))


@provokes("FAILED_PRECONDITION")
def test_a_chat_with_a_model_that_has_no_template(pb, tmp_path):
    model = tiny_model.write(str(tmp_path / "tiny"))
    path = os.path.join(model, "tokenizer_config.json")
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    config.pop("chat_template", None)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    with Daemon("--model", model) as own, contextlib.ExitStack() as stack:
        chat = pb.inference.Chat(messages=[pb.inference.ChatMessage(role="user", content="hi")])
        error = refused(stub_of(pb, own, stack).Generate, generate(pb, chat=chat))
        said = check_row("FAILED_PRECONDITION", error, own.request("POST", CHAT, {"messages": HELLO, "max_tokens": 1}))
        assert "template" in said["message"]
        assert own.post(COMPLETIONS, {"prompt": "a", "max_tokens": 1})[0] == 200


@provokes("OUT_OF_RANGE")
def test_a_part_of_a_stream_that_is_no_longer_kept(pb, tmp_path):
    with Daemon("--model", tiny_model.write(str(tmp_path / "tiny")), "--resume-ring-tokens", "4") as own, \
            contextlib.ExitStack() as stack:
        status, _, data = own.request("POST", COMPLETIONS, {"prompt": "a", "max_tokens": 200, "ignore_eos": True, "stream": True},
                                      {"X-Request-Id": "ring", "X-Fastgen-Resume-Window": "30"})
        assert status == 200
        first = re.search(rb"^id: (\S+)$", data, re.MULTILINE)[1].decode()
        error = refused(stub_of(pb, own, stack).Attach, pb.inference.AttachRequest(request_id="ring", from_token=1))
        answer = own.request("GET", "/v1/streams/ring", None, {"Last-Event-ID": first})
        check_row("OUT_OF_RANGE", error, answer)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory):
    keys = Keys(tmp_path_factory.mktemp("keys") / "keys", infer=("infer", ""), few=("infer", "max-concurrent=1"))
    model = tiny_model.write(str(tmp_path_factory.mktemp("models") / "tiny"))
    with Daemon("--model", model, "--api-keys", keys.path) as running:
        running.keys = keys
        yield running


@provokes("UNAUTHENTICATED")
def test_no_key(keyed, pb):
    with contextlib.ExitStack() as stack:
        error = refused(stub_of(pb, keyed, stack).Generate, generate(pb))
    answer = keyed.request("POST", COMPLETIONS, {"prompt": "a"})
    check_row("UNAUTHENTICATED", error, answer)
    assert answer[1]["WWW-Authenticate"] == "Bearer"


@provokes("PERMISSION_DENIED")
def test_a_key_without_the_scope(keyed, pb):
    shown = keyed.keys.bearer("infer")
    with grpc.insecure_channel(keyed.grpc) as channel:
        with pytest.raises(grpc.RpcError) as error:
            pb.admin_grpc.AdminStub(channel).GetStats(pb.admin.GetStatsRequest(), metadata=(("authorization", shown["Authorization"]),))
    check_row("PERMISSION_DENIED", error.value, keyed.request("GET", "/metrics", None, shown))


@provokes("RESOURCE_EXHAUSTED")
def test_a_full_queue(pb):
    with full_daemon(pb) as (own, stub, _, _):
        error = refused(stub.Generate, generate(pb, text="word " * 40))
        check_row("RESOURCE_EXHAUSTED", error, own.request("POST", COMPLETIONS, {"prompt": "word " * 40}))


@provokes("UNAVAILABLE")
def test_a_drain(pb):
    with Daemon("--max-model-len", "512") as own, contextlib.ExitStack() as stack:
        stub = stub_of(pb, own, stack)
        live = generate(pb)
        live.stopping.max_tokens, live.stopping.ignore_eos = 500, True
        admin = pb.admin_grpc.AdminStub(stack.enter_context(grpc.insecure_channel(own.grpc)))
        stream = stub.Generate(live)
        next(stream)
        admin.Pause(pb.admin.PauseRequest())  # what is live stays so until the end of the test
        own.signal(signal.SIGTERM)
        own.wait_line("draining")
        error = refused(stub.Generate, generate(pb))
        check_row("UNAVAILABLE", error, own.request("POST", COMPLETIONS, {"prompt": "a", "max_tokens": 1}))
        admin.Resume(pb.admin.ResumeRequest())
        assert list(stream)[-1].WhichOneof("event") == "finished"
        assert own.wait() == 0


@provokes("ABORTED")
def test_a_reader_that_another_replaced(daemon, stub, pb):
    live = generate(pb, request_id="table-taken")
    live.resume_window.seconds = 30
    live.stopping.max_tokens, live.stopping.ignore_eos = 2000, True
    first = stub.Generate(live)
    next(first)
    answers = []
    second = stub.Attach(pb.inference.AttachRequest(request_id="table-taken"))
    next(second)
    with pytest.raises(grpc.RpcError) as error:
        list(first)
    second.cancel()
    stub.Cancel(pb.inference.CancelRequest(request_ids=["table-taken"]))
    # Over HTTP: two readers of one whole answer, of which the older is turned away before its first byte.
    body = {"prompt": "a", "max_tokens": 2000, "ignore_eos": True}
    head = {"X-Request-Id": "table-whole", "X-Fastgen-Resume-Window": "30"}
    reader = threading.Thread(target=lambda: answers.append(daemon.request("POST", COMPLETIONS, body, head)))
    reader.start()
    taker = threading.Thread(target=lambda: daemon.request("GET", "/v1/streams/table-whole"))
    deadline = time.monotonic() + 20
    while not any(r.request_id == "table-whole" for r in list_requests(daemon, pb)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    taker.start()
    reader.join(30)
    daemon.post("/v1/cancel", {"request_id": "table-whole"})
    taker.join(30)
    check_row("ABORTED", error.value, answers[0])


def list_requests(daemon, pb):
    with grpc.insecure_channel(daemon.grpc) as channel:
        return pb.admin_grpc.AdminStub(channel).ListRequests(pb.admin.ListRequestsRequest()).requests


@provokes("UNIMPLEMENTED")
def test_what_this_version_does_not_serve(daemon, admin, pb):
    with pytest.raises(grpc.RpcError) as error:
        admin.StartProfile(pb.admin.StartProfileRequest())
    check_row("UNIMPLEMENTED", error.value, daemon.request("POST", "/v1/embeddings", {"input": "a"}))


def test_every_row_is_provoked_or_says_why_not():
    assert set(LIVE) | set(NOT_LIVE) == set(table()) and not set(LIVE) & set(NOT_LIVE)
