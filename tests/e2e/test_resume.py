"""Streams whose connection breaks: with a resume window they go on, by Last-Event-ID; without one their work ends."""
import http.client
import json
import time

import grpc
import pytest

from test_concurrency import wait_running
from test_grpc import wait_all_free

WINDOW = {"X-Fastgen-Resume-Window": "30"}
CHAT = {"messages": [{"role": "user", "content": "Count from one to twenty."}], "temperature": 0, "max_tokens": 40, "stream": True,
        "stream_options": {"include_usage": True}}
STORY = {"prompt": "Once upon a time", "temperature": 0, "max_tokens": 40, "stream": True, "logprobs": 1, "echo": True}
SHAPES = {
    "chat": ("/v1/chat/completions", CHAT),
    "chat with a stop": ("/v1/chat/completions", {**CHAT, "stop": ["seven"], "logprobs": True}),
    "completion": ("/v1/completions", STORY),
    "choices": ("/v1/completions", {**STORY, "n": 3, "temperature": 1, "seed": 5}),
}


class Stream:
    """One connection that reads events until it is told to break."""

    def __init__(self, daemon, method, path, body=None, headers=None):
        self.connection = http.client.HTTPConnection("127.0.0.1", daemon.http_port, timeout=60)
        self.connection.request(method, path, None if body is None else json.dumps(body),
                                {"Content-Type": "application/json", **(headers or {})})
        self.answer = self.connection.getresponse()
        self.last_id = None

    def __iter__(self):
        ident = None
        for line in self.answer:
            line = line.decode().rstrip("\n")
            if line.startswith("id: "):
                ident = line[4:]
            elif line.startswith("data: "):
                self.last_id = ident or self.last_id
                yield line[6:]
                ident = None

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.connection.close()


def plain(events, request_id):
    """Events as they are but for what names this very request."""
    out = []
    for event in events:
        if event != "[DONE]":
            event = json.loads(event)
            assert event["id"].endswith(request_id)
            event.pop("id"), event.pop("created")
            if event.get("usage"):
                event["usage"].pop("prompt_tokens_details")
        out.append(event)
    return out


def meaning(events):
    """What the pieces add up to: a reader that was late gets tokens in larger ones."""
    total = {}
    for event in events:
        if event == "[DONE]":
            total["done"] = total.get("done", 0) + 1
            continue
        total["usage"] = event.get("usage") or total.get("usage")
        for choice in event["choices"]:
            mine = total.setdefault(choice["index"], {"text": "", "roles": 0, "finish": [], "logprobs": {}})
            delta = choice.get("delta", {})
            mine["roles"] += "role" in delta
            mine["text"] += choice.get("text") or delta.get("content") or ""
            mine["finish"] += [choice["finish_reason"]] if choice["finish_reason"] else []
            for name, values in (choice["logprobs"] or {}).items():
                if values is not None:
                    mine["logprobs"].setdefault(name, []).extend(values)
    return total


@pytest.mark.parametrize("shape", SHAPES)
def test_a_broken_stream_goes_on_where_it_was(daemon, shape):
    path, body = SHAPES[shape]
    with Stream(daemon, "POST", path, body, {"X-Request-Id": f"whole-{len(shape)}"}) as stream:
        whole = meaning(plain(list(stream), f"whole-{len(shape)}"))
    assert whole["done"] == 1
    for cut in (1, 2, 3, 7, 12):
        request_id = f"resume-{len(shape)}-{cut}"
        got = []
        with Stream(daemon, "POST", path, body, {**WINDOW, "X-Request-Id": request_id}) as stream:
            for event in stream:
                got.append(event)
                if len(got) == cut:
                    break
            last_id = stream.last_id
        # Breaks a second time on the way.
        for limit in (2, 10 ** 6):
            with Stream(daemon, "GET", f"/v1/streams/{request_id}", headers={"Last-Event-ID": last_id}) as stream:
                assert stream.answer.status == 200
                for count, event in enumerate(stream, 1):
                    got.append(event)
                    if count == limit:
                        break
                last_id = stream.last_id or last_id
            if got[-1] == "[DONE]":
                break
        assert meaning(plain(got, request_id)) == whole, (shape, cut)


def test_a_stream_that_ended_is_there_until_its_window_closes(daemon, admin, pb):
    headers = {"X-Fastgen-Resume-Window": "1", "X-Request-Id": "short"}
    with Stream(daemon, "POST", "/v1/completions", {**STORY, "max_tokens": 3}, headers) as stream:
        first = list(stream)
    with Stream(daemon, "GET", "/streams/short") as stream:
        assert plain(list(stream), "short")[-1] == "[DONE]" and first[-1] == "[DONE]"
    deadline = time.monotonic() + 20
    while True:
        status, _, data = daemon.get("/streams/short")
        if status == 404:
            break
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert json.loads(data)["error"]["code"] == "stream_not_found"


def test_a_whole_answer_can_be_fetched_after_a_break(daemon, admin, pb):
    body = {"prompt": "Once upon a time", "temperature": 0, "max_tokens": 60, "ignore_eos": True}
    want = daemon.post("/v1/completions", body)[1]
    connection = http.client.HTTPConnection("127.0.0.1", daemon.http_port)
    connection.request("POST", "/v1/completions", json.dumps(body),
                       {"Content-Type": "application/json", "X-Request-Id": "fetch", **WINDOW})
    wait_running(admin, pb)
    connection.sock.close()
    connection.close()
    status, _, data = daemon.get("/v1/streams/fetch")
    assert status == 200
    got = json.loads(data)
    assert got["choices"] == want["choices"] and got["id"] == "cmpl-fetch"
    assert daemon.request("GET", "/v1/streams/fetch", headers={"Last-Event-ID": "1.0.0.0"})[0] == 400


def test_a_window_keeps_the_work_and_cancel_ends_it(daemon, admin, pb):
    body = {**STORY, "max_tokens": 3000, "ignore_eos": True}
    with Stream(daemon, "POST", "/v1/completions", body, {**WINDOW, "X-Request-Id": "kept"}) as stream:
        next(iter(stream))
    time.sleep(0.5)
    assert admin.GetStats(pb.admin.GetStatsRequest()).num_running == 1
    assert daemon.post("/cancel", {"request_id": "kept"})[1]["cancelled"] == ["kept"]
    wait_all_free(admin, pb)


def test_a_newer_reader_takes_over(daemon):
    body = {**STORY, "max_tokens": 400, "ignore_eos": True}
    with Stream(daemon, "POST", "/v1/completions", body, {**WINDOW, "X-Request-Id": "taken"}) as first:
        events = iter(first)
        next(events)
        with Stream(daemon, "GET", "/v1/streams/taken") as second:
            next(iter(second))
            rest = list(events)
            assert json.loads(rest[-2])["error"]["code"] == "aborted" and rest[-1] == "[DONE]"
        assert daemon.post("/cancel", {"request_id": "taken"})[1]["cancelled"] == ["taken"]


def test_attach_over_grpc_and_http_meet(daemon, stub, pb):
    """A stream begun over HTTP goes on over gRPC."""
    body = {**STORY, "max_tokens": 30, "ignore_eos": True, "echo": False, "logprobs": None}
    with Stream(daemon, "POST", "/v1/completions", body, {**WINDOW, "X-Request-Id": "both"}) as stream:
        got = [json.loads(event)["choices"][0]["text"] for event, _ in zip(stream, range(4))]
        tokens = int(stream.last_id.split(".")[0])
    events = list(stub.Attach(pb.inference.AttachRequest(request_id="both", from_token=tokens)))
    want = daemon.post("/v1/completions", {**body, "stream": False})[1]["choices"][0]["text"]
    # The last event that was seen comes again: its id is where it began.
    assert want.startswith("".join(got))
    assert want.endswith("".join(e.delta.text for e in events))
    with pytest.raises(grpc.RpcError) as refused:
        list(stub.Attach(pb.inference.AttachRequest(request_id="both", from_token=1000)))
    assert refused.value.code() == grpc.StatusCode.OUT_OF_RANGE


def test_a_disconnect_without_a_window_ends_the_work_in_any_phase(daemon, admin, pb):
    """In the queue, in a long prefill, in decode."""
    def begin(body):
        connection = http.client.HTTPConnection("127.0.0.1", daemon.http_port)
        connection.request("POST", "/v1/completions", json.dumps({"max_tokens": 2000, "ignore_eos": True, **body}),
                           {"Content-Type": "application/json"})
        return connection

    def leave(connection):
        connection.sock.close()
        connection.close()

    for stream in (False, True):
        admin.Pause(pb.admin.PauseRequest())
        waiting = begin({"prompt": "a", "stream": stream})
        deadline = time.monotonic() + 10
        while admin.GetStats(pb.admin.GetStatsRequest()).num_waiting < 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        leave(waiting)
        wait_all_free(admin, pb)
        admin.Resume(pb.admin.ResumeRequest())
        prefilling = begin({"prompt": "other words " * 3000, "stream": stream})
        wait_running(admin, pb)
        before = admin.GetStats(pb.admin.GetStatsRequest()).num_steps
        leave(prefilling)
        wait_all_free(admin, pb)
        # 6000 tokens are a dozen steps; far fewer were taken.
        assert admin.GetStats(pb.admin.GetStatsRequest()).num_steps - before <= 6
