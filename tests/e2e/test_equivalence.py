"""A streamed answer is the whole one in pieces: text, calls, logprobs, ids, reasons and usage are equal, request by request.

Greedy and seeded answers do not depend on what runs beside them, so twins can be compared to the last bit.
"""
import concurrent.futures
import json

import pytest


COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
QUESTION = [{"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "What is the capital of France?"}]
STORY = "Once upon a time, in a small village by the sea,"
EMOJI = "Answer with emoji only: 🙂🙃 🚀"
TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "Weather of a city", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]


def completion(**more):
    return COMPLETIONS, {"prompt": STORY, "max_tokens": 24, "temperature": 0, **more}


def chat(**more):
    return CHAT, {"messages": QUESTION, "max_tokens": 24, "temperature": 0, **more}


TWINS = {
    "completion": completion(),
    "completion of ids": completion(prompt=[1, 2, 3, 4, 5]),
    "completions of several prompts": completion(prompt=[STORY, "Two plus two is", EMOJI], n=2, logprobs=1),
    "completions of several lists of ids": completion(prompt=[[1, 2, 3], [4, 5]], echo=True),
    "seeded": completion(temperature=1.0, seed=11, logprobs=3),
    "seeded, n": completion(temperature=1.2, seed=12, n=4, logprobs=0),
    "echo": completion(echo=True, logprobs=2),
    "echo alone": completion(echo=True, logprobs=1, max_tokens=0),
    "echo without logprobs": completion(echo=True, max_tokens=3),
    "stop": completion(stop=[" the", "sea"], logprobs=1),
    "stop kept": completion(stop=" the", include_stop_str_in_output=True),
    "stop by id": completion(stop_token_ids=[28, 30]),
    "special tokens kept": completion(skip_special_tokens=False, ignore_eos=True),
    "ids": completion(return_token_ids=True, logprobs=1, return_tokens_as_token_ids=True),
    "characters in pieces": completion(prompt=EMOJI, temperature=1.5, seed=5, n=3, logprobs=2, return_token_ids=True),
    "bad words and bias": completion(bad_words=["the"], logit_bias={"28": -50}, repetition_penalty=1.2),
    "length": completion(max_tokens=1),
    "chat": chat(),
    "chat, logprobs": chat(logprobs=True, top_logprobs=3),
    "chat, n": chat(n=3, temperature=0.9, seed=3, logprobs=True),
    "chat, stop": chat(stop=["Paris"], return_token_ids=True),
    "chat, seeded": chat(temperature=1.0, seed=4, top_p=0.9, top_k=50, min_p=0.01),
    "chat, penalties": chat(presence_penalty=0.5, frequency_penalty=0.5, temperature=0.7, seed=9),
    "chat, goes on": chat(messages=QUESTION + [{"role": "assistant", "content": "The capital"}], continue_final_message=True),
    "chat, emoji": chat(messages=[{"role": "user", "content": EMOJI}], temperature=1.4, seed=8, logprobs=True, n=2),
}
CONSTRAINED = {
    "json object": chat(response_format={"type": "json_object"}, max_tokens=40),
    "schema": chat(response_format={"type": "json_schema", "json_schema": {"name": "c", "schema": {
        "type": "object", "properties": {"city": {"type": "string", "maxLength": 12}, "n": {"type": "integer"}},
        "required": ["city", "n"], "additionalProperties": False}}}, max_tokens=60, logprobs=True),
    "regex": completion(structured_outputs={"regex": "[a-f]{3,9}"}, return_token_ids=True),
    "choice": completion(guided_choice=["positive", "negative"], n=2, temperature=1, seed=1),
    "grammar": completion(grammar='root ::= "yes" | "no"'),
    "schema cut by length": chat(guided_json={"type": "array", "items": {"type": "integer"}, "minItems": 50}, max_tokens=9),
}
# The calls that a parser reads: the default model has none of its own.
TOOL_TWINS = {
    "tools": chat(tools=TOOLS, max_tokens=48),
    "tools for none": chat(tools=TOOLS, tool_choice="none"),
}
TOOL_CONSTRAINED = {
    "required tool": chat(tools=TOOLS, tool_choice="required", max_tokens=60),
    "named tool": chat(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "get_weather"}}, max_tokens=60),
    "one call": chat(tools=TOOLS, parallel_tool_calls=False, max_tokens=60),
    "schema or tools": chat(tools=TOOLS, response_format={"type": "json_object"}, max_tokens=30),
}
LEGACY = ("tokens", "token_logprobs", "top_logprobs", "text_offset")


def stream_of(daemon, path, body):
    body = {**body, "stream": True, "stream_options": {"include_usage": True}}
    status, headers, data = daemon.request("POST", path, body)
    assert status == 200, data
    assert headers["Content-Type"].startswith("text/event-stream")
    events = [line[6:] for line in data.decode().split("\n\n") if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    return [json.loads(event) for event in events]


def add_logprobs(total, piece):
    """Lists grow; what has none stays None."""
    if piece is None:
        return total
    if total is None:
        return json.loads(json.dumps(piece))
    for name in LEGACY if "tokens" in piece else ("content",):
        total[name] += piece[name]
    return total


def add_calls(calls, pieces):
    for piece in pieces:
        if "id" in piece:
            assert piece["index"] == len(calls)
            calls.append({"id": piece["id"], "type": piece["type"], "function": {"name": piece["function"]["name"], "arguments": ""}})
        calls[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]


def joined(chunks, num_choices, is_chat):
    """What the chunks add up to, choice by choice, in the whole answer's form."""
    choices = [{"index": i, "logprobs": None, "token_ids": [], "text": "", "calls": [], "finish_reason": None, "roles": 0}
               for i in range(num_choices)]
    for chunk in chunks:
        for piece in chunk["choices"]:
            choice = choices[piece["index"]]
            assert choice["finish_reason"] is None, "nothing follows a choice's finish"
            if is_chat:
                choice["roles"] += "role" in piece["delta"]
                choice["text"] += piece["delta"].get("content") or ""
                add_calls(choice["calls"], piece["delta"].get("tool_calls", []))
            else:
                choice["text"] += piece["text"]
            choice["logprobs"] = add_logprobs(choice["logprobs"], piece["logprobs"])
            choice["token_ids"] += piece.get("token_ids", [])
            if piece["finish_reason"] is not None:
                choice["finish_reason"], choice["stop_reason"] = piece["finish_reason"], piece["stop_reason"]
    return choices


def without_ids(calls):
    """A call's id is drawn anew for every answer."""
    assert all(call["id"] for call in calls)
    return [{**call, "id": ""} for call in calls]


def check_twins(daemon, path, body):
    status, whole = daemon.post(path, body)
    assert status == 200, whole
    chunks = stream_of(daemon, path, body)
    is_chat = path == CHAT
    assert len({(c["id"], c["created"], c["model"], c["object"]) for c in chunks}) == 1
    assert chunks[-1]["choices"] == [] and all(c["usage"] is None for c in chunks[:-1])
    usages = [dict(whole["usage"]), dict(chunks[-1]["usage"])]
    for usage in usages:  # the second request finds the first one's prompt in the cache
        usage.pop("prompt_tokens_details")
    assert usages[0] == usages[1]
    for choice, twin in zip(whole["choices"], joined(chunks, len(whole["choices"]), is_chat)):
        text = choice["message"]["content"] or "" if is_chat else choice["text"]
        assert twin["text"] == text
        assert (twin["finish_reason"], twin["stop_reason"]) == (choice["finish_reason"], choice["stop_reason"])
        if body.get("return_token_ids"):
            assert twin["token_ids"] == choice["token_ids"]
        if is_chat:
            assert twin["roles"] == 1
            assert without_ids(twin["calls"]) == without_ids(choice["message"].get("tool_calls", []))
        assert (twin["logprobs"] or {}).items() >= {k: v for k, v in (choice["logprobs"] or {}).items() if v}.items()
    return whole


@pytest.mark.parametrize("name", TWINS)
def test_a_streamed_answer_equals_its_twin(daemon, name):
    path, body = TWINS[name]
    whole = check_twins(daemon, path, body)
    assert all(choice["finish_reason"] for choice in whole["choices"])


@pytest.mark.parametrize("name", CONSTRAINED)
def test_a_constrained_stream_equals_its_twin(daemon, name):
    check_twins(daemon, *CONSTRAINED[name])


@pytest.mark.parametrize("name", [*TOOL_TWINS, *TOOL_CONSTRAINED])
def test_a_stream_with_tools_equals_its_twin(tool_daemon, name):
    whole = check_twins(tool_daemon, *{**TOOL_TWINS, **TOOL_CONSTRAINED}[name])
    choice = whole["choices"][0]
    if name in ("required tool", "named tool") and choice["finish_reason"] != "length":
        assert choice["finish_reason"] == ("stop" if name == "named tool" else "tool_calls")
        assert [call["function"]["name"] for call in choice["message"]["tool_calls"]].count("get_weather") >= 1
        assert choice["message"]["content"] is None


def test_logprobs_add_up_to_the_text(daemon):
    for path, body in (completion(prompt=EMOJI, temperature=1.5, seed=5, logprobs=1), chat(logprobs=True, temperature=1.5, seed=2)):
        choice = daemon.post(path, body)[1]["choices"][0]
        if path == CHAT:
            data = b"".join(bytes(row["bytes"]) for row in choice["logprobs"]["content"])
            assert data.decode(errors="replace").startswith(choice["message"]["content"].rstrip("�"))
        else:
            assert choice["logprobs"]["text_offset"][0] == 0
            assert len({len(choice["logprobs"][name]) for name in LEGACY}) == 1


def test_a_running_usage_ends_at_the_final_one(daemon):
    body = {**chat()[1], "stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    data = daemon.request("POST", CHAT, body)[2].decode()
    chunks = [json.loads(line[6:]) for line in data.split("\n\n") if line.startswith("data: {")]
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] == counts[-2] > 0
    assert all(chunk["usage"]["total_tokens"] == chunk["usage"]["prompt_tokens"] + chunk["usage"]["completion_tokens"]
               for chunk in chunks)


def test_prompt_logprobs_say_what_echo_says(daemon):
    echoed = daemon.post(*completion(echo=True, logprobs=2, max_tokens=0))[1]["choices"][0]["logprobs"]
    scored = daemon.post(*completion(prompt_logprobs=2, max_tokens=0, return_token_ids=True))[1]["choices"][0]
    ids, rows = scored["prompt_token_ids"], scored["prompt_logprobs"]
    assert scored["text"] == "" and rows[0] is None and len(rows) == len(ids) == len(echoed["tokens"])
    for i, row in enumerate(rows[1:], 1):
        own = row[str(ids[i])]
        assert own["logprob"] == echoed["token_logprobs"][i] and own["decoded_token"] == echoed["tokens"][i]
        assert {entry["rank"] for entry in row.values()} >= {1, 2} and 2 <= len(row) <= 3
    # A chat has them beside its choices.
    chat_rows = daemon.post(*chat(prompt_logprobs=0, max_tokens=1))[1]["prompt_logprobs"]
    assert chat_rows[0] is None and all(len(row) == 1 for row in chat_rows[1:])


def test_every_stop_string_of_12_characters_ends_the_text_before_it(daemon):
    """Wherever it begins in its token and ends in another, and streamed or not, nothing of it leaks."""
    path, body = completion(max_tokens=20, ignore_eos=True, logprobs=0)
    free = daemon.post(path, body)[1]["choices"][0]
    text, borders = free["text"], free["logprobs"]["text_offset"]
    assert len(text) > 40 and len(borders) == 20
    starts = range(len(text) - 12 + 1)

    def check(start):
        stop = text[start:start + 12]
        want = text[:text.index(stop)]
        asked = {**body, "stop": [stop], "logprobs": None}
        whole = daemon.post(path, asked)[1]["choices"][0]
        assert (whole["text"], whole["finish_reason"], whole["stop_reason"]) == (want, "stop", stop), stop
        (streamed,) = joined(stream_of(daemon, path, asked), 1, False)
        assert (streamed["text"], streamed["finish_reason"], streamed["stop_reason"]) == (want, "stop", stop), stop

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(check, starts))
    # Stops begin and end at every place of a token: at its border, and within it.
    assert {start in borders for start in starts} == {start + 12 in borders for start in starts} == {True, False}
