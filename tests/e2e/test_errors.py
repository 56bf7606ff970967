"""One table of hostile requests: each is refused with its status in OpenAI's shape, by name, and the daemon goes on.

Below it: the same refusals over gRPC with their google.rpc details, the errors that a daemon's state causes, and
mutated requests, none of which may be answered with a 5xx.
"""
import contextlib
import copy
import http.client
import json
import os
import random
import signal
import socket
import time

import grpc
import pytest
from google.rpc import error_details_pb2

import tiny_model
from daemon import Daemon
from test_grpc import details

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "hi"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
         405: "invalid_request_error", 408: "timeout_error", 413: "invalid_request_error", 415: "invalid_request_error",
         417: "invalid_request_error", 429: "rate_limit_error", 431: "invalid_request_error", 501: "not_supported_error",
         503: "unavailable_error"}


def chat(status, param, **more):
    return "POST", CHAT, {"messages": HELLO, "max_tokens": 1, **more}, status, param


def completion(status, param, **more):
    return "POST", COMPLETIONS, {"prompt": "a", "max_tokens": 1, **more}, status, param


def post(path, body, status, param=None):
    return "POST", path, body, status, param


def nested(depth):
    return b'{"messages":' + b"[" * depth + b"]" * depth + b"}"


# method, path, body (JSON, or bytes as they are), status, param ("*": whichever).
HOSTILE = [
    # Bodies that are not a JSON object
    *[post(COMPLETIONS, body, 400) for body in (
        b"", b"{", b"[]", b"null", b"5", b'"x"', b'{"prompt":', b"\xff\xfe", b'{"prompt":"\xff"}', b'{"prompt":"a"} x',
        b"{'prompt':'a'}", b'{"prompt":NaN}', b'{"prompt":"\\ud800"}', b'{"a":"\n"}', b"[" * 10000, nested(65),
        b"{" + b",".join(b'"k%d":1' % i for i in range(600)) + b"}")],
    # Prompts
    *[completion(400, "prompt", prompt=prompt) for prompt in (
        None, 5, True, {}, [], [[]], [1, "a"], ["a", 1], [[1], "a"], [1.5], [-1], [2 ** 31], [[[1]]], [None], ["a"] * 1025,
        [10 ** 6], "")],
    completion(400, "*", prompt="word " * 9000),
    completion(400, "n", prompt=["a"] * 20, n=100),
    # Messages
    *[post(CHAT, {"messages": messages}, 400, param) for messages, param in (
        (None, "messages"), ([], "messages"), ({}, "messages"), ("hi", "messages"), ([5], "messages[0]"),
        ([{"content": "x"}], "messages[0].role"), ([{"role": "robot", "content": "x"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"), ([{"role": "user", "content": 5}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content"),
        ([{"role": "function", "name": "f", "content": "x"}], "messages[0].role"),
        ([{"role": "assistant", "function_call": {"name": "f"}}], "messages[0].function_call"),
        ([{"role": "assistant", "tool_calls": [5]}], "messages[0].tool_calls[0]"),
        ([{"role": "assistant", "tool_calls": [{"type": "function"}]}], "messages[0].tool_calls[0].function"),
        ([HELLO[0]] * 4097, "messages"),
        ([{"role": "user", "content": [{"type": "text", "text": "x"}] * 1025}], "messages[0].content"),
        ([{"role": "user", "content": "word " * 9000}], "*"))],
    # Sampling
    *[row(400, name, **{name: value}) for row in (chat, completion) for name, value in (
        ("temperature", "hot"), ("temperature", -1), ("temperature", True), ("top_p", 0), ("top_p", 1.5), ("top_p", [1]),
        ("top_k", -2), ("top_k", 1.5), ("min_p", 2), ("presence_penalty", 3), ("frequency_penalty", -3),
        ("repetition_penalty", 0), ("seed", "x"), ("seed", 0.5), ("logit_bias", {"x": 1}), ("logit_bias", {"5": 101}),
        ("logit_bias", {"60000": 1}), ("logit_bias", {str(i): 1 for i in range(1025)}), ("logit_bias", [1]),
        ("allowed_token_ids", ["x"]), ("allowed_token_ids", [60000]), ("bad_words", [""]), ("bad_words", ["x"] * 257))],
    # Stopping and counts
    *[row(400, name, **{name: value}) for row in (chat, completion) for name, value in (
        ("stop", 5), ("stop", [""]), ("stop", ["a", 5]), ("stop", ["x"] * 65), ("stop_token_ids", [60000]),
        ("stop_token_ids", [-1]), ("n", 0), ("n", 129), ("n", "1"), ("best_of", 0), ("max_tokens", -1),
        ("max_tokens", 2 ** 31), ("max_tokens", True), ("max_tokens", 0), ("min_tokens", -1), ("min_tokens", 5),
        ("priority", 101), ("cache_salt", "s" * 257), ("request_id", "a b"), ("request_id", "x" * 129), ("model", 5),
        ("stream", "yes"), ("stream_options", {"include_usage": True}))],
    chat(400, "max_tokens", max_completion_tokens=2),
    chat(400, "best_of", n=3, best_of=2),
    chat(400, "best_of", best_of=3, stream=True),
    chat(400, "stream_options.include_usage", stream=True, stream_options={"include_usage": 1}),
    # Logprobs
    chat(400, "top_logprobs", top_logprobs=2),
    chat(400, "top_logprobs", logprobs=True, top_logprobs=21),
    chat(400, "logprobs", logprobs=1),
    completion(400, "logprobs", logprobs=21),
    completion(400, "logprobs", logprobs=True),
    *[row(400, "prompt_logprobs", **more) for row in (chat, completion) for more in (
        {"prompt_logprobs": 21}, {"prompt_logprobs": -1}, {"prompt_logprobs": 1, "stream": True})],
    # Constraints
    *[row(400, param, **more) for row in (chat, completion) for param, more in (
        ("response_format", {"response_format": "text"}),
        ("response_format.type", {"response_format": {"type": "yaml"}}),
        ("response_format.json_schema.schema", {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}),
        ("guided_regex", {"response_format": {"type": "json_object"}, "guided_regex": "a"}),
        ("structured_outputs.choice", {"structured_outputs": {"regex": "a", "choice": ["b"]}}),
        ("structured_outputs.regex", {"structured_outputs": {"regex": 5}}),
        ("guided_json", {"guided_json": 5}), ("guided_choice", {"guided_choice": []}),
        ("guided_unheard_of", {"guided_unheard_of": 1}))],
    # Tools
    chat(400, "tools", tools=[]),
    chat(400, "tools", tools=["f"]),
    chat(400, "tools", tools=[TOOL] * 257),
    chat(400, "tools[0].function", tools=[{"type": "function"}]),
    chat(400, "tools[0].type", tools=[{"type": "web_search"}]),
    chat(400, "tool_choice", tool_choice="auto"),
    chat(400, "tool_choice", tools=[TOOL], tool_choice="any"),
    chat(400, "tool_choice", tools=[TOOL], tool_choice={"type": "function", "function": {"name": "g"}}),
    chat(400, "tool_choice.function", tools=[TOOL], tool_choice={"type": "function"}),
    chat(400, "tool_choice.type", tools=[TOOL], tool_choice={"type": "allowed_tools"}),
    chat(400, "parallel_tool_calls", tools=[TOOL], parallel_tool_calls=1),
    # What other servers do and this one does not
    *[chat(400, name, **{name: value}) for name, value in (
        ("functions", [{"name": "f"}]), ("function_call", "auto"), ("audio", {}), ("prediction", {}), ("echo", True),
        ("modalities", ["audio"]), ("web_search_options", {}), ("reasoning_effort", "low"), ("verbosity", "low"),
        ("chat_template", "{{ x }}"), ("documents", [{}]), ("add_special_tokens", True), ("parse_special", True),
        ("chat_template_kwargs", []), ("suffix", "x"), ("reasoning_format", "none"))],
    *[completion(400, name, **{name: value}) for name, value in (
        ("suffix", "x"), ("messages", HELLO), ("tools", [TOOL]), ("use_beam_search", True), ("length_penalty", 2),
        ("truncate_prompt_tokens", 5), ("repetition_detection", {}), ("stop_regex", "x"), ("lora_path", "x"),
        ("mirostat", 2), ("dry_multiplier", 0.5), ("xtc_probability", 0.5), ("typical_p", 0.5), ("n_predict", 5),
        ("logits_processors", ["x"]), ("kv_transfer_params", {"a": 1}), ("vllm_xargs", {"a": 1}), ("samplers", ["top_k"]))],
    # The other routes
    post("/tokenize", {}, 400, "prompt"),
    post("/tokenize", {"prompt": 5}, 400, "prompt"),
    post("/tokenize", {"messages": []}, 400, "messages"),
    post("/detokenize", {}, 400, "tokens"),
    post("/detokenize", {"tokens": ["a"]}, 400, "tokens"),
    post("/detokenize", {"tokens": [5] * 262145}, 400, "tokens"),
    post("/detokenize", {"tokens": [10 ** 6]}, 400, "*"),
    post("/cancel", {}, 400, "request_id"),
    post("/cancel", {"request_ids": [5]}, 400, "request_ids"),
    post("/cancel", {"request_ids": ["a"] * 4097}, 400, "request_ids"),
    post("/v1/nonsense", {}, 404),
    post("/", {}, 404),
    post("/v1/embeddings", {"input": "a"}, 501),
    post("/v1/models", {}, 405),
    ("GET", CHAT, None, 405, None),
    ("DELETE", "/v1/models", None, 405, None),
    ("GET", "/v1/models/other", None, 404, "model"),
    ("GET", "/v1/%zz", None, 404, None),
    ("GET", "/v1/streams/never", None, 404, "request_id"),
]


def check_error(status, data, want, param="*"):
    error = json.loads(data)["error"]
    assert status == want, (status, data)
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str) and error["message"]
    assert error["type"] == TYPES[status]
    assert isinstance(error["code"], str) and error["code"]
    if param != "*":
        assert error["param"] == param, error
    return error


def test_the_table_is_long_enough():
    assert len(HOSTILE) >= 120


@pytest.mark.parametrize("row", HOSTILE, ids=[f"{i}-{row[1]}-{row[4]}" for i, row in enumerate(HOSTILE)])
def test_a_hostile_request_is_refused_by_name(daemon, row):
    method, path, body, want, param = row
    status, headers, data = daemon.request(method, path, body, {"X-Request-Id": "hostile-1"})
    error = check_error(status, data, want, param)
    assert headers["X-Request-Id"] == "hostile-1"
    assert headers["Content-Type"] == "application/json"
    if param not in (None, "*", "request_id"):
        assert param.split(".")[-1].split("[")[0] in error["message"], error
    assert daemon.alive()


@pytest.mark.parametrize("headers, want", [
    ({"Content-Type": "text/plain"}, 415),
    ({"Content-Encoding": "gzip"}, 415),
    ({"Expect": "a miracle"}, 417),
    ({"X-Fastgen-Resume-Window": "soon"}, 400),
    ({"X-Fastgen-Resume-Window": "-1"}, 400),
    ({"X-Fastgen-Resume-Window": "4000"}, 400),
    ({"Last-Event-ID": "1.0.0.0"}, 400),
    ({"X-Request-Id": "x" * 129}, 400),
    ({"X-Long": "x" * (65 << 10)}, 431),
    ({f"X-{i}": "x" * 1000 for i in range(80)}, 431),
])
def test_a_hostile_head_is_refused(daemon, headers, want):
    status, _, data = daemon.request("POST", COMPLETIONS, {"prompt": "a", "max_tokens": 1}, headers)
    check_error(status, data, want)
    assert daemon.get("/health")[0] == 200


def test_a_body_above_the_limit_is_refused_before_it_is_read(daemon):
    with socket.create_connection(("127.0.0.1", daemon.http_port), timeout=20) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 17000000\r\n\r\n")
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        check_error(answer.status, answer.read(), 413)
    # One that fits the limit and not the context.
    status, _, data = daemon.request("POST", COMPLETIONS, {"prompt": "word " * 2_000_000})
    assert check_error(status, data, 400)["code"] == "context_length_exceeded"
    assert daemon.alive()


def test_every_answer_has_a_request_id(daemon):
    for method, path, body in (("GET", "/health", None), ("GET", "/v1/nonsense", None), ("POST", CHAT, b"{"),
                               ("POST", COMPLETIONS, {"prompt": "a", "max_tokens": 1})):
        first, second = (daemon.request(method, path, body)[1]["X-Request-Id"] for _ in range(2))
        assert first and second and first != second
        assert daemon.request(method, path, body, {"X-Request-Id": "mine"})[1]["X-Request-Id"] == "mine"


# Over gRPC: what each status carries.

def generate(pb, **more):
    request = pb.inference.GenerateRequest(stopping=pb.inference.Stopping(max_tokens=1), **more)
    if not request.WhichOneof("prompt"):
        request.text = "a"
    return request


def refused(call, request, **more):
    with pytest.raises(grpc.RpcError) as error:
        list(call(request, **more))
    return error.value


@pytest.mark.parametrize("field, change", [
    ("prompt", lambda pb, r: r.ClearField("text")),
    ("prompt", lambda pb, r: setattr(r, "text", "word " * 9000)),
    ("chat.messages", lambda pb, r: r.chat.SetInParent()),
    ("chat.messages[0].role", lambda pb, r: r.chat.messages.add()),
    ("sampling.temperature", lambda pb, r: setattr(r.sampling, "temperature", -1)),
    ("sampling.top_p", lambda pb, r: setattr(r.sampling, "top_p", 0)),
    ("sampling.min_p", lambda pb, r: setattr(r.sampling, "min_p", 2)),
    ("stopping.max_tokens", lambda pb, r: setattr(r.stopping, "max_tokens", -1)),
    ("stopping.stop", lambda pb, r: r.stopping.stop.append("")),
    ("output.logprobs", lambda pb, r: setattr(r.output, "logprobs", 21)),
    ("n", lambda pb, r: setattr(r, "n", 129)),
    ("request_id", lambda pb, r: setattr(r, "request_id", "a b")),
    ("resume_window", lambda pb, r: setattr(r.resume_window, "seconds", -1)),
])
def test_invalid_arguments_name_their_field(stub, pb, field, change):
    request = generate(pb)
    change(pb, request)
    error = refused(stub.Generate, request)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    violations = details(error, error_details_pb2.BadRequest).field_violations
    assert field in [v.field for v in violations] and all(v.description for v in violations)


def test_a_prompt_beyond_the_context_has_its_reason(stub, pb):
    error = refused(stub.Generate, generate(pb, text="word " * 9000))
    assert details(error, error_details_pb2.ErrorInfo).reason == "CONTEXT_LENGTH_EXCEEDED"


def test_states_have_their_status_over_grpc_and_http(daemon, stub, pb):
    # NOT_FOUND, 404
    error = refused(stub.Attach, pb.inference.AttachRequest(request_id="never"))
    assert error.code() == grpc.StatusCode.NOT_FOUND
    # ALREADY_EXISTS, 400; then OUT_OF_RANGE, 400
    live = generate(pb, request_id="errors-live")
    live.resume_window.seconds = 30
    live.stopping.max_tokens, live.stopping.ignore_eos = 2000, True
    stream = stub.Generate(live)
    next(stream)
    assert refused(stub.Generate, live).code() == grpc.StatusCode.ALREADY_EXISTS
    status, _, data = daemon.request("POST", COMPLETIONS, {"prompt": "a", "request_id": "errors-live", "max_tokens": 1})
    assert check_error(status, data, 400)["code"] == "already_exists"
    error = refused(stub.Attach, pb.inference.AttachRequest(request_id="errors-live", from_token=100000))
    assert error.code() == grpc.StatusCode.OUT_OF_RANGE
    # CANCELLED: the stream tells it in its own way.
    assert daemon.post("/v1/cancel", {"request_id": "errors-live"})[1]["cancelled"] == ["errors-live"]
    # DEADLINE_EXCEEDED
    error = refused(stub.Generate, generate(pb, text="word " * 4000), timeout=0.05)
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED


@contextlib.contextmanager
def full_daemon(pb):
    """(daemon, its stubs, the request that waits): paused, and with room in its queue for no second one of 40 words."""
    with Daemon("--max-queued-tokens", "64", "--max-num-seqs", "1", "--max-model-len", "512") as own, \
            grpc.insecure_channel(own.grpc) as channel:
        stub, own_admin = pb.inference_grpc.InferenceStub(channel), pb.admin_grpc.AdminStub(channel)
        own_admin.Pause(pb.admin.PauseRequest())
        held = stub.Generate(generate(pb, text="word " * 40))
        deadline = time.monotonic() + 10
        while own_admin.GetStats(pb.admin.GetStatsRequest()).num_waiting < 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield own, stub, own_admin, held
        held.cancel()


def test_a_full_queue_and_a_drain_say_when_to_come_again(pb):
    with full_daemon(pb) as (own, stub, own_admin, held):
        error = refused(stub.Generate, generate(pb, text="word " * 40))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details(error, error_details_pb2.RetryInfo).HasField("retry_delay")
        for stream in (False, True):
            status, headers, data = own.request("POST", COMPLETIONS, {"prompt": "word " * 40, "stream": stream})
            check_error(status, data, 429)
            assert int(headers["Retry-After"]) >= 1
        own.signal(signal.SIGTERM)
        own.wait_line("draining")
        error = refused(stub.Generate, generate(pb))
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert details(error, error_details_pb2.RetryInfo).HasField("retry_delay")
        own_admin.Resume(pb.admin.ResumeRequest())
        assert [e.WhichOneof("event") for e in held][-1] == "finished"


def test_strict_refuses_what_nobody_knows(tmp_path):
    with Daemon("--model", tiny_model.write(str(tmp_path / "tiny")), "--strict", "--strict-model") as own:
        for path, body, param in ((COMPLETIONS, {"prompt": "a", "vim": 1}, "vim"),
                                  (COMPLETIONS, {"prompt": "a", "stream": True, "stream_options": {"vim": 1}}, "stream_options.vim"),
                                  ("/tokenize", {"prompt": "a", "vim": 1}, "vim"),
                                  ("/detokenize", {"tokens": [5], "vim": 1}, "vim"),
                                  ("/cancel", {"request_id": "a", "vim": 1}, "vim")):
            status, headers, data = own.request("POST", path, body)
            assert check_error(status, data, 400, param)["code"] == "unknown_parameter"
        status, _, data = own.request("POST", COMPLETIONS, {"prompt": "a", "model": "gpt-4o-mini"})
        assert check_error(status, data, 404, "model")["code"] == "model_not_found"
        assert own.post(COMPLETIONS, {"prompt": "a", "user": "u", "metadata": {}, "store": False})[0] == 200


# Mutated requests.

VALID = [
    (COMPLETIONS, {"prompt": "once upon", "max_tokens": 1, "temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "seed": 3,
                   "logprobs": 2, "echo": True, "n": 2, "stop": ["x", "yz"], "stop_token_ids": [7], "logit_bias": {"5": -1},
                   "return_token_ids": True, "stream": False, "user": "u", "request_id": "m", "priority": 1}),
    (COMPLETIONS, {"prompt": [[1, 2, 3], [4]], "max_tokens": 1, "prompt_logprobs": 1, "min_tokens": 0, "ignore_eos": False}),
    (COMPLETIONS, {"prompt": ["a", "b"], "max_tokens": 1, "stream": True, "stream_options": {"include_usage": True}}),
    (COMPLETIONS, {"prompt": "a", "max_tokens": 1, "structured_outputs": {"regex": "[a-z]+"}, "bad_words": ["no"]}),
    (CHAT, {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}],
            "max_completion_tokens": 1, "logprobs": True, "top_logprobs": 2, "chat_template_kwargs": {"a": [1]}}),
    (CHAT, {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "tool_calls": [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "5"}], "max_tokens": 1, "tools": [TOOL], "tool_choice": "none",
        "parallel_tool_calls": True}),
    (CHAT, {"messages": HELLO, "max_tokens": 1, "stream": True, "response_format": {"type": "json_schema", "json_schema": {
        "name": "x", "schema": {"type": "object", "properties": {"a": {"type": "integer"}}}, "strict": True}}}),
    ("/tokenize", {"prompt": "hello", "add_special_tokens": True, "return_token_strs": True}),
    ("/tokenize", {"messages": HELLO, "add_generation_prompt": True}),
    ("/detokenize", {"tokens": [1, 2, 3], "skip_special_tokens": True}),
    ("/cancel", {"request_ids": ["a", "b"], "request_id": "c"}),
    ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
                                 {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                                 {"type": "function_call_output", "call_id": "c", "output": "5"}],
                       "instructions": "s", "max_output_tokens": 1, "tools": [{"type": "function", **TOOL["function"]}],
                       "tool_choice": "none", "include": ["message.output_text.logprobs"], "top_logprobs": 1}),
    ("/v1/responses", {"input": "hi", "max_output_tokens": 1, "stream": True, "text": {"format": {
        "type": "json_schema", "name": "x", "schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}}}),
    ("/v1/messages", {"system": [{"type": "text", "text": "s"}], "max_tokens": 1, "stop_sequences": ["x"], "messages": [
        {"role": "user", "content": "hi"}, {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "t", "signature": ""}, {"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "5"}]}],
        "tools": [{"name": "f", "input_schema": {"type": "object"}}], "tool_choice": {"type": "none"}}),
    ("/v1/messages", {"messages": HELLO, "max_tokens": 1, "stream": True, "thinking": {"type": "enabled", "budget_tokens": 1024},
                      "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}}),
    ("/v1/messages/count_tokens", {"messages": HELLO, "system": "s"}),
]
VALUES = [None, True, False, 0, 1, -1, 2, 0.5, -0.0, 1e308, 1e-308, 2 ** 31, 2 ** 63, 2 ** 64, -2 ** 63 - 1, "", "x", "auto", "\x00",
          "\ud83d\ude00", "é" * 100, "a" * 5000, "{}", "[", [], {}, [[]], [None], [1, "a"], ["a"] * 100, {"a": {"b": {"c": []}}}, [0] * 300]
NAMES = ["n", "best_of", "stop", "stream", "echo", "logprobs", "prompt_logprobs", "tools", "tool_choice", "response_format", "grammar",
         "guided_regex", "guided_json", "guided_choice", "json_schema", "structured_outputs", "logit_bias", "seed", "prompt", "messages",
         "continue_final_message", "add_generation_prompt", "cache_salt", "priority", "allowed_token_ids", "stream_options", "min_tokens",
         "return_tokens_as_token_ids", "include_reasoning", "separate_reasoning", "model", "functions", "ünknown", ""]


LAST_EVENT = {COMPLETIONS: b"data: [DONE]", CHAT: b"data: [DONE]", "/v1/responses": (b"event: response.", b"event: error"),
              "/v1/messages": (b"event: message_stop", b"event: error")}


def places(value, path=()):
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], path + (key,))
    elif isinstance(value, list):
        for i in range(min(len(value), 20)):
            yield from places(value[i], path + (i,))


def mutate(rng, body):
    body = copy.deepcopy(body)
    for _ in range(rng.randint(1, 4)):
        path = rng.choice([p for p in places(body) if p])
        parent = body
        for step in path[:-1]:
            parent = parent[step]
        kind = rng.random()
        if kind < 0.5:
            parent[path[-1]] = copy.deepcopy(rng.choice(VALUES))
        elif kind < 0.65:
            del parent[path[-1]]
        elif kind < 0.75 and isinstance(parent, list):
            parent.extend(copy.deepcopy(parent[path[-1]]) for _ in range(rng.randint(1, 50)))
        else:
            body[rng.choice(NAMES)] = copy.deepcopy(rng.choice(VALUES))
        if not body:
            break
    data = bytearray(json.dumps(body, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass"))
    if rng.random() < 0.2:
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data) + 1)
            data[at:at + rng.randint(0, 3)] = bytes(rng.randrange(256) for _ in range(rng.randint(0, 3)))
    return bytes(data)


def test_mutated_requests_never_end_in_a_5xx(tmp_path):
    """FASTGEN_MUTATIONS requests (10000), the same in every run."""
    rng = random.Random(20)
    count = int(os.environ.get("FASTGEN_MUTATIONS", "10000"))
    statuses = {}
    with Daemon("--model", tiny_model.write(str(tmp_path / "tiny")), "--max-model-len", "128") as own:
        connection = http.client.HTTPConnection("127.0.0.1", own.http_port, timeout=60)
        for _ in range(count):
            path, body = rng.choice(VALID)
            data = mutate(rng, body)
            connection.request("POST", path, data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status < 500, (path, data, text)
            if answer.status != 200 and path.startswith("/v1/messages"):
                error = json.loads(text)
                assert error["type"] == "error" and error["error"]["message"] and error["request_id"], (path, data, text)
            elif answer.status != 200:
                check_error(answer.status, text, answer.status)
            elif answer.headers["Content-Type"].startswith("text/event-stream"):
                assert text.rsplit(b"\n\n", 2)[-2].startswith(LAST_EVENT[path]), (path, data, text)
                assert not any(word in text for word in (b'"internal_error"', b'"server_error"', b'"api_error"')), (path, data, text)
            else:
                json.loads(text)
            statuses[answer.status] = statuses.get(answer.status, 0) + 1
        assert own.get("/health")[0] == 200
    # The mutations reach behind the first check: a good part is still served.
    assert statuses[200] > count // 20 and statuses[400] > count // 5, statuses
