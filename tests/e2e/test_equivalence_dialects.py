"""A streamed Response or Message is the whole one in pieces: test_equivalence.py for the two dialects that answer in parts.

Also here: stop strings of 12 characters in a chat and in Messages (Responses has no such field, and says so).
"""
import concurrent.futures
import json

import pytest

from daemon import Daemon
from test_equivalence import EMOJI, QUESTION, STORY, chat, joined, stream_of
from test_structured_dialects import BLOCK_TOOLS, TOOLS
from test_tools import write_script_model

RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
SCHEMA = {"type": "object", "properties": {"city": {"enum": ["Rome", "Paris"]}, "n": {"type": "boolean"}},
          "required": ["city", "n"], "additionalProperties": False}


def response(**more):
    return RESPONSES, {"input": QUESTION, "max_output_tokens": 24, "temperature": 0, **more}


def message(**more):
    return MESSAGES, {"system": QUESTION[0]["content"], "messages": QUESTION[1:], "max_tokens": 24, "temperature": 0, **more}


TWINS = {
    "response": response(),
    "response, seeded": response(temperature=1.2, seed=4, top_p=0.9, top_k=50, min_p=0.01),
    "response, length": response(max_output_tokens=1),
    "response, penalties": response(presence_penalty=0.5, frequency_penalty=0.5, temperature=0.7, seed=9),
    "response, logprobs": response(include=["message.output_text.logprobs"], top_logprobs=3),
    "response, emoji": response(input=EMOJI, temperature=1.4, seed=8, include=["message.output_text.logprobs"]),
    "response, bias": response(input=STORY, logit_bias={"28": -50}, bad_words=["the"]),
    "response, schema": response(text={"format": {"type": "json_schema", "name": "s", "schema": SCHEMA}}),
    "response, schema cut": response(text={"format": {"type": "json_schema", "name": "s", "schema": SCHEMA}}, max_output_tokens=4),
    "response, regex": response(structured_outputs={"regex": "[a-f]{3,9}"}, temperature=1, seed=2),
    "message": message(),
    "message, seeded": message(temperature=1, seed=4, top_p=0.9, top_k=50),
    "message, length": message(max_tokens=1),
    "message, stop": message(stop_sequences=["Paris"]),
    "message, goes on": message(messages=QUESTION[1:] + [{"role": "assistant", "content": "The capital"}]),
    "message, emoji": message(messages=[{"role": "user", "content": EMOJI}], seed=8, temperature=1),
    "message, schema": message(output_config={"format": {"type": "json_schema", "schema": SCHEMA}}),
    "message, schema cut": message(output_config={"format": {"type": "json_schema", "schema": SCHEMA}}, max_tokens=4),
    "message, choice": message(guided_choice=["positive", "negative"], temperature=1, seed=1),
}
TOOL_TWINS = {
    "response, forced call": response(tools=TOOLS, tool_choice="required", max_output_tokens=80),
    "response, named call cut": response(tools=TOOLS, tool_choice={"type": "function", "name": "GetTime"}, max_output_tokens=9),
    "response, free tools": response(tools=TOOLS, max_output_tokens=30),
    "message, forced call": message(tools=BLOCK_TOOLS, tool_choice={"type": "any"}, max_tokens=80),
    "message, named call cut": message(tools=BLOCK_TOOLS, tool_choice={"type": "tool", "name": "GetTime"}, max_tokens=9),
    "message, free tools": message(tools=BLOCK_TOOLS, max_tokens=30),
}
SCRIPT_TWINS = {
    "response, all parts": response(input="How is Rome?", max_output_tokens=64, tools=[
        {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}]),
    "message, all parts": message(system="", messages=[{"role": "user", "content": "How is Rome?"}], max_tokens=64, tools=[
        {"name": "get_weather", "input_schema": {"type": "object"}}]),
    "message, thinking left out": message(system="", messages=[{"role": "user", "content": "How is Rome?"}], max_tokens=64,
                                          thinking={"type": "adaptive", "display": "omitted"}),
}


def events_of(daemon, path, body):
    """The named events of a stream: each has its name in its data too."""
    status, headers, data = daemon.request("POST", path, {**body, "stream": True})
    assert status == 200, data
    assert headers["Content-Type"].startswith("text/event-stream")
    events = []
    for block in data.decode().strip().split("\n\n"):
        if block.startswith(":"):
            continue
        name, value = block.split("\n")
        assert name.startswith("event: ") and value.startswith("data: ")
        events.append(json.loads(value[6:]))
        assert events[-1]["type"] == name[7:]
    return events


def without_ids(value):
    """Ids are drawn anew for every answer."""
    if isinstance(value, dict):
        return {k: without_ids(v) for k, v in value.items() if k not in ("id", "call_id", "created_at", "completed_at", "item_id")}
    return [without_ids(v) for v in value] if isinstance(value, list) else value


def response_from(events):
    """The items that the deltas add up to, and the last event's response, which must say the same."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    items = []
    for event in events:
        kind = event["type"]
        if kind == "response.output_item.added":
            assert event["output_index"] == len(items)
            items.append({"type": event["item"]["type"], "text": "", "logprobs": []})
        elif kind in ("response.output_text.delta", "response.reasoning_text.delta", "response.function_call_arguments.delta"):
            items[event["output_index"]]["text"] += event["delta"]
            items[event["output_index"]]["logprobs"] += event.get("logprobs") or []
        elif kind == "response.output_item.done":
            items[event["output_index"]]["done"] = event["item"]
    final = events[-1]["response"]
    assert [item.pop("done") for item in items] == final["output"]
    for item, said in zip(items, final["output"], strict=True):
        assert item["type"] == said["type"]
        part = said["content"][0] if said["type"] != "function_call" else said
        assert item["text"] == (part["arguments"] if said["type"] == "function_call" else part["text"])
        if part.get("logprobs"):
            assert [p["token"] for p in item["logprobs"]] == [p["token"] for p in part["logprobs"]]
    return final


def complete_or_empty(arguments):
    """Arguments that max_tokens cut are no JSON: the whole message has {} for them."""
    try:
        return json.loads(arguments)
    except ValueError:
        return {}


def message_from(events):
    """The message that the events add up to."""
    assert events[0]["type"] == "message_start" and events[-1]["type"] == "message_stop"
    total = events[0]["message"]
    for event in events[1:-1]:
        if event["type"] == "content_block_start":
            assert event["index"] == len(total["content"])
            total["content"].append({**event["content_block"], "json": ""})
        elif event["type"] == "content_block_delta":
            block, delta = total["content"][event["index"]], event["delta"]
            name = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "json", "signature_delta": "signature"}
            source = {"input_json_delta": "partial_json"}.get(delta["type"], name[delta["type"]])
            block[name[delta["type"]]] += delta[source]
        elif event["type"] == "message_delta":
            total.update(event["delta"])
            total["usage"].update(event["usage"])
    for block in total["content"]:
        arguments = block.pop("json")
        if block["type"] == "tool_use":
            block["input"] = complete_or_empty(arguments)
    return total


def usage_of(answer):
    """What was in and out; the twin may have found its prompt in the cache."""
    usage = answer["usage"]
    if "cache_read_input_tokens" in usage:
        return usage["input_tokens"] + usage["cache_read_input_tokens"], usage["output_tokens"]
    return {k: v for k, v in usage.items() if k != "input_tokens_details"}


def check_twins(daemon, path, body):
    status, whole = daemon.post(path, body)
    assert status == 200, whole
    events = events_of(daemon, path, body)
    streamed = response_from(events) if path == RESPONSES else message_from(events)
    assert usage_of(streamed) == usage_of(whole)
    for answer in (whole, streamed):
        answer.pop("usage")
    assert without_ids(streamed) == without_ids(whole)
    return whole


@pytest.mark.parametrize("name", TWINS)
def test_a_streamed_answer_equals_its_twin(daemon, name):
    check_twins(daemon, *TWINS[name])


@pytest.mark.parametrize("name", TOOL_TWINS)
def test_a_stream_with_tools_equals_its_twin(tool_daemon, name):
    check_twins(tool_daemon, *TOOL_TWINS[name])


@pytest.fixture(scope="module")
def scripted(tmp_path_factory):
    with Daemon("--model", write_script_model(str(tmp_path_factory.mktemp("script") / "model"))) as running:
        yield running


@pytest.mark.parametrize("name", SCRIPT_TWINS)
def test_a_stream_of_reasoning_text_and_calls_equals_its_twin(scripted, name):
    whole = check_twins(scripted, *SCRIPT_TWINS[name])
    if "all parts" in name:
        assert len(whole.get("output") or whole["content"]) == 3


# Stop strings.

def chat_with(stop):
    return chat(max_tokens=20, **({"stop": [stop]} if stop else {}))


def message_with(stop):
    return message(max_tokens=20, **({"stop_sequences": [stop]} if stop else {}))


def chat_texts(daemon, stop):
    """[(text, why it ended)] of a whole chat and of a streamed one."""
    path, body = chat_with(stop)
    choice = daemon.post(path, body)[1]["choices"][0]
    (streamed,) = joined(stream_of(daemon, path, body), 1, True)
    return [(choice["message"]["content"] or "", choice["stop_reason"]), (streamed["text"], streamed["stop_reason"])]


def message_texts(daemon, stop):
    path, body = message_with(stop)
    answers = [daemon.post(path, body)[1], message_from(events_of(daemon, path, body))]
    return [("".join(block["text"] for block in answer["content"]), answer["stop_sequence"]) for answer in answers]


@pytest.mark.parametrize("texts_of", [chat_texts, message_texts])
def test_every_stop_string_of_12_characters_ends_the_text_before_it(daemon, texts_of):
    (text, ended), again = texts_of(daemon, None)
    assert ended is None and again == (text, None) and len(text) > 24

    def check(start):
        stop = text[start:start + 12]
        assert texts_of(daemon, stop) == [(text[:text.index(stop)], stop)] * 2, stop

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(check, range(len(text) - 12 + 1)))


def test_responses_refuse_stop_strings_by_name(daemon):
    status, answer = daemon.post(*response(stop=["a"]))
    assert (status, answer["error"]["param"]) == (400, "stop")
