"""Hostile requests of the Responses and Messages dialects: each refused by name in its own shape, and the daemon goes on.

The table of the chat and completions dialects is in test_errors.py, whose mutations cover these routes too.
"""
import json

import pytest

from test_errors import check_error

RESPONSES, MESSAGES, COUNT = "/v1/responses", "/v1/messages", "/v1/messages/count_tokens"
TURN = [{"role": "user", "content": "hi"}]
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}}
BLOCK_TOOL = {"name": "f", "input_schema": {"type": "object"}}


def response(param, **more):
    return {"input": "hi", "max_output_tokens": 1, **more}, param


def message(param, **more):
    return {"messages": TURN, "max_tokens": 1, **more}, param


def turn(content, role="user"):
    return [{"role": role, "content": content}]


# body, param ("*": whichever)
HOSTILE_RESPONSES = [
    *[(body, None) for body in (b"", b"[]", b"null", b"{", b"\xff", b'{"input":"a"} x', b"[" * 10000)],
    *[response(param, input=value) for value, param in (
        (None, "input"), (5, "input"), ([], "input"), ({}, "input"), ([5], "input[0]"), ([{}], "*"),
        ([{"role": "robot", "content": "x"}], "input[0].role"), ([{"role": "user", "content": 5}], "input[0].content"),
        ([{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}], "*"),
        ([{"role": "user", "content": [{"type": "input_file"}]}], "*"),
        ([{"type": "item_reference", "id": "x"}], "*"), ([{"type": "computer_call"}], "*"),
        ([{"type": "function_call", "name": "f"}], "*"), ([{"type": "function_call_output", "call_id": "c"}], "*"),
        (TURN * 4097, "*"), ("word " * 9000, "*"))],
    *[response(name, **{name: value}) for name, value in (
        ("max_output_tokens", 0), ("max_output_tokens", -1), ("max_output_tokens", "x"), ("max_output_tokens", 2 ** 31),
        ("temperature", -1), ("temperature", "hot"), ("top_p", 0), ("top_p", 2), ("top_k", -2), ("min_p", 2), ("seed", "x"),
        ("logit_bias", {"x": 1}), ("presence_penalty", 3), ("stream", "yes"), ("instructions", 5), ("tools", "f"),
        ("tools", [TOOL] * 257), ("parallel_tool_calls", 1), ("include", "x"), ("include", [5]), ("top_logprobs", 21),
        ("previous_response_id", "r"), ("conversation", "c"), ("background", True), ("truncation", "auto"), ("prompt", {"id": "p"}),
        ("n", 2), ("messages", TURN), ("stop", ["x"]), ("max_tokens", 5), ("logprobs", True), ("response_format", {"type": "json_object"}),
        ("model", 5), ("request_id", "a b"), ("cache_salt", "s" * 257), ("priority", 101), ("chat_template_kwargs", []))],
    response("tool_choice", tool_choice="required"),
    response("tool_choice", tool_choice="any", tools=[TOOL]),
    response("*", tools=[{"type": "web_search"}]),
    response("*", tools=[{"type": "function"}]),
    response("*", reasoning={"effort": "low"}),
    response("*", text={"format": {"type": "yaml"}}),
    response("*", text={"verbosity": "low"}),
    response("*", text=5),
]
HOSTILE_MESSAGES = [
    *[(body, None) for body in (b"", b"[]", b"null", b"{", b"\xff", b'{"messages":[]} x', b"[" * 10000)],
    *[message(param, messages=value) for value, param in (
        (None, "messages"), ([], "messages"), ("hi", "messages"), ({}, "messages"), ([5], "messages[0]"), ([{}], "messages[0]"),
        (turn("x", "system5"), "messages[0].role"), (turn("x", "tool"), "messages[0].role"), (turn(5), "messages[0].content"),
        (turn([5]), "messages[0].content[0]"), (turn([{"type": "image"}]), "messages[0].content[0]"),
        (turn([{"type": "document"}]), "messages[0].content[0]"), (turn([{"type": "text"}]), "messages[0].content[0]"),
        (turn([{"type": "tool_use", "id": "t"}], "assistant"), "messages[0].content[0]"),
        (turn([{"type": "tool_result"}]), "messages[0].content[0]"), (TURN * 4097, "messages"), (turn("word " * 9000), ""))],
    *[message(name, **{name: value}) for name, value in (
        ("max_tokens", None), ("max_tokens", 0), ("max_tokens", -1), ("max_tokens", "x"), ("max_tokens", 20000), ("temperature", -1),
        ("temperature", "hot"), ("top_p", 0), ("top_k", -2), ("stop_sequences", "x"), ("stop_sequences", [""]),
        ("stop_sequences", ["x"] * 65), ("stop_sequences", [5]), ("stream", "yes"), ("system", 5), ("system", [{"type": "image"}]),
        ("tools", "f"), ("tools", [BLOCK_TOOL] * 257), ("tools", [{"name": "f"}]), ("tools", [{"type": "bash_20250124", "name": "bash"}]),
        ("tool_choice", {"type": "any"}), ("tool_choice", "any"), ("tool_choice", {"type": "maybe"}), ("thinking", {"type": "maybe"}),
        ("thinking", 5), ("output_config", {"format": {"type": "yaml"}}), ("output_config", {"effort": "low"}), ("container", "c"),
        ("mcp_servers", [{}]), ("context_management", {"edits": [{}]}), ("n", 2), ("stop", ["x"]), ("logprobs", True),
        ("max_completion_tokens", 5), ("model", 5), ("metadata", 5), ("logit_bias", {"x": 1}), ("request_id", "a b"))],
]


def ids(table):
    return [f"{i}-{param}" for i, (_, param) in enumerate(table)]


@pytest.mark.parametrize("body, param", HOSTILE_RESPONSES, ids=ids(HOSTILE_RESPONSES))
def test_a_hostile_responses_request_is_refused_by_name(daemon, body, param):
    status, headers, data = daemon.request("POST", RESPONSES, body, {"X-Request-Id": "hostile-2"})
    error = check_error(status, data, 400, param)
    assert headers["X-Request-Id"] == "hostile-2" and headers["Content-Type"] == "application/json"
    if param not in (None, "*"):
        assert param.split(".")[-1].split("[")[0] in error["message"], error
    assert daemon.alive()


def check_anthropic(answer, words):
    status, headers, data = answer
    error = json.loads(data)
    assert status == 400 and set(error) == {"type", "error", "request_id"} and error["type"] == "error", error
    assert set(error["error"]) == {"type", "message"} and error["error"]["type"] == "invalid_request_error"
    assert error["request_id"] == headers["request-id"] == headers["X-Request-Id"] == "hostile-3"
    assert error["error"]["message"] and (words or "") in error["error"]["message"], error


@pytest.mark.parametrize("body, param", HOSTILE_MESSAGES, ids=ids(HOSTILE_MESSAGES))
def test_a_hostile_messages_request_is_refused_by_name(daemon, body, param):
    check_anthropic(daemon.request("POST", MESSAGES, body, {"X-Request-Id": "hostile-3"}), param)
    assert daemon.alive()


@pytest.mark.parametrize("body, words", [
    (b"{", ""), ({}, "messages"), ({"messages": []}, "messages"), ({"messages": TURN, "tools": 5}, "tools"),
    ({"messages": [5]}, "messages[0]"), ({"messages": TURN, "system": 5}, "system")])
def test_a_hostile_count_of_tokens_is_refused_by_name(daemon, body, words):
    check_anthropic(daemon.request("POST", COUNT, body, {"X-Request-Id": "hostile-3"}), words)
