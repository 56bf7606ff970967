"""/openapi.json is true: every answer fits the schema of its status, and every field has the types that it says."""
import json
import subprocess
import time

import pytest

import tiny_model
from daemon import Daemon, free_port, program
from openapi_document import Document
from test_keys import Keys
from test_tools import TOOLS, write_script_model

HI = [{"role": "user", "content": "Say hi."}]
TOOL = {"type": "function", "function": {"name": "look_up", "description": "Looks a word up.", "parameters": {
    "type": "object", "properties": {"word": {"type": "string", "maxLength": 8}}, "required": ["word"], "additionalProperties": False}}}
FLAT_TOOL = {"type": "function", **TOOL["function"]}
CLAUDE_TOOL = {"name": "look_up", "input_schema": TOOL["function"]["parameters"]}
WINDOW = {"X-Fastgen-Resume-Window": "30"}
CHAT, TEXT, PARTS, BLOCKS = "/chat/completions", "/completions", "/responses", "/messages"


def chat(**more):
    return {"messages": HI, "max_tokens": 6, "temperature": 0, **more}


def text(**more):
    return {"prompt": "One two", "max_tokens": 6, "temperature": 0, **more}


def parts(**more):
    return {"input": "Say hi.", "max_output_tokens": 6, "temperature": 0, **more}


def blocks(**more):
    return {"messages": HI, "max_tokens": 6, "temperature": 0, **more}


# Route, body, status. A body that may stream is sent both ways.
BOTH_WAYS = [
    (CHAT, chat(), 200), (CHAT, chat(n=2, seed=1, temperature=1), 200), (CHAT, chat(logprobs=True, top_logprobs=2, n=2), 200),
    (CHAT, chat(return_token_ids=True, logprobs=True, return_tokens_as_token_ids=True), 200), (CHAT, chat(unheard_of=1), 200),
    (CHAT, chat(stop=" "), 200), (CHAT, chat(stop_token_ids=list(range(1000))), 200), (CHAT, chat(model="any"), 200),
    (CHAT, chat(tools=[TOOL], tool_choice="required", max_tokens=60), 200), (CHAT, chat(tools=[TOOL], tool_choice="required"), 200),
    (CHAT, chat(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "look_up"}}, max_tokens=60), 200),
    (CHAT, chat(response_format={"type": "json_object"}), 200), (CHAT, chat(temperature=-1), 400), (CHAT, chat(max_tokens="x"), 400),
    (CHAT, chat(messages=HI * 9000), 400), (CHAT, chat(messages=[{"role": "user", "content": "word " * 9000}]), 400),
    (TEXT, text(), 200), (TEXT, text(prompt=["a", "b"], n=2), 200), (TEXT, text(logprobs=3, echo=True), 200), (TEXT, text(logprobs=0), 200),
    (TEXT, text(return_token_ids=True, echo=True), 200), (TEXT, text(prompt=[[40, 41], [42]]), 200), (TEXT, text(guided_choice=["yes", "no"]), 200),
    (TEXT, text(ignore_eos=True, include_stop_str_in_output=True, stop=["e"]), 200), (TEXT, {}, 400), (TEXT, text(logprobs=21), 400),
    (PARTS, parts(), 200), (PARTS, parts(instructions="Be brief.", include=["message.output_text.logprobs"], top_logprobs=1), 200),
    (PARTS, parts(tools=[FLAT_TOOL], tool_choice="required", max_output_tokens=60, metadata={"a": "b"}, user="u"), 200),
    (PARTS, parts(text={"format": {"type": "json_schema", "name": "n", "schema": {"enum": ["a"]}}}, reasoning={"summary": "auto"}), 200),
    (PARTS, parts(input=[{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]), 200), (PARTS, parts(store=5), 400),
    (BLOCKS, blocks(), 200), (BLOCKS, blocks(stop_sequences=["e", "a", "i", "o"], max_tokens=20), 200), (BLOCKS, blocks(unheard_of=1), 200),
    (BLOCKS, blocks(tools=[CLAUDE_TOOL], tool_choice={"type": "any"}, max_tokens=60), 200), (BLOCKS, blocks(max_tokens=0), 400),
    (BLOCKS, blocks(system="Be brief.", thinking={"type": "enabled", "budget_tokens": 1024}), 200), (BLOCKS, blocks(top_p=2), 400),
]
# Method, route, what is sent, body (JSON, or bytes as they are), headers, status.
ONE_WAY = [
    ("post", CHAT, chat(prompt_logprobs=2), {}, 200), ("post", CHAT, chat(prompt_logprobs=0, max_tokens=0), {}, 200),
    ("post", CHAT, chat(best_of=3, n=2, temperature=1), {}, 200), ("post", CHAT, chat(request_id="mine"), {}, 200),
    ("post", CHAT, chat(stream=True, stream_options={"include_usage": True}), {}, 200),
    ("post", CHAT, chat(stream=True, stream_options={"continuous_usage_stats": True}), WINDOW, 200),
    ("post", TEXT, text(prompt_logprobs=2, prompt=["One two", "three"]), {}, 200),
    ("post", TEXT, text(echo=True, max_tokens=0, logprobs=1), {}, 200), ("post", TEXT, text(stream=True), WINDOW, 200),
    ("post", TEXT, text(stream=True, stream_options={"include_usage": True, "include_obfuscation": False}), {}, 200),
    ("post", TEXT, text(), {"X-Request-Id": "mine"}, 200), ("post", TEXT, text(), {"X-Request-Id": "not mine"}, 400),
    ("post", TEXT, text(), {"Content-Type": "text/plain"}, 415), ("post", TEXT, text(), {"Content-Encoding": "gzip"}, 415),
    ("post", TEXT, text(), {"Expect": "tea"}, 417), ("post", TEXT, text(), {"X-Padding": "x" * 70000}, 431),
    ("post", TEXT, text(), {"Last-Event-ID": "5"}, 400), ("post", TEXT, text(), {"X-Fastgen-Resume-Window": "3601"}, 400),
    ("post", TEXT, text(), {"Origin": "http://example.org"}, 403), ("post", BLOCKS, blocks(), {"Origin": "http://example.org"}, 403),
    ("post", TEXT, b"{", {}, 400), ("post", PARTS, b"[]", {}, 400), ("post", BLOCKS, b"\xff", {}, 400),
    ("post", BLOCKS, blocks(), {"Content-Type": "text/plain"}, 415), ("post", BLOCKS, blocks(), {"X-Request-Id": "mine"}, 200),
    ("post", PARTS, parts(stream=True), WINDOW, 200), ("post", BLOCKS, blocks(stream=True), WINDOW, 200),
    ("post", "/messages/count_tokens", {"messages": HI, "tools": [CLAUDE_TOOL], "unheard_of": 1}, {}, 200),
    ("post", "/messages/count_tokens", {}, {"X-Request-Id": "mine"}, 400),
    ("post", "/chat/completions/input_tokens", {"messages": HI}, {}, 200), ("post", "/chat/completions/input_tokens", {}, {}, 400),
    ("post", "/apply-template", {"messages": HI, "add_generation_prompt": False}, {}, 200), ("post", "/apply-template", {}, {}, 400),
    ("post", "/tokenize", {"prompt": "One two é"}, {}, 200), ("post", "/tokenize", {"content": "€", "with_pieces": True}, {}, 200),
    ("post", "/tokenize", {"prompt": "a b", "return_token_strs": True}, {}, 200), ("post", "/tokenize", {"messages": HI}, {}, 200),
    ("post", "/tokenize", {}, {}, 400), ("post", "/detokenize", {"tokens": [40, 41]}, {}, 200), ("post", "/detokenize", {"tokens": ["a"]}, {}, 400),
    ("post", "/cancel", {"request_ids": ["nobody", "none"]}, {}, 200), ("post", "/cancel", {}, {}, 400),
    ("get", "/models", None, {}, 200), ("get", "/health", None, {}, 200), ("get", "/version", None, {}, 200), ("get", "/metrics", None, {}, 200),
    ("get", "/tokenizer_info", None, {}, 200), ("get", "/openapi.json", None, {}, 200), ("get", "/health", None, {"Expect": "tea"}, 417),
    *[("post", path, body, {}, 501) for body in ({}, {"input": "x", "level": 1}, b"{") for path in (
        "/embeddings", "/start_profile", "/stop_profile", "/sleep", "/wake_up", "/update_weights")],
]


@pytest.fixture(scope="module")
def daemon():
    with Daemon("--tool-call-parser", "hermes", "--max-model-len", "4096") as running:
        yield running
        assert running.stop() == 0, running.log


def fetch(daemon):
    status, _, body = daemon.request("GET", "/openapi.json")
    assert status == 200
    return Document(json.loads(body))


@pytest.fixture(scope="module")
def document(daemon):
    return fetch(daemon).closed()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    with Daemon("--model", tiny_model.write(str(tmp_path_factory.mktemp("models") / "tiny"))) as running:
        yield running
        assert running.stop() == 0, running.log


def check(daemon, document, method, path, body, headers, status, real_path=None):
    got, answered, data = daemon.request(method.upper(), "/v1" + (real_path or path), body, headers)
    assert got == status, (path, body, got, data)
    assert not document.problems(method, path, got, answered, data), (path, body, data[:2000])
    return answered, data


def test_the_document_is_openapi(daemon):
    import schemathesis
    document = fetch(daemon)
    schemathesis.openapi.from_dict(document.document).validate()
    used = set()
    walk = [document.document]
    while walk:
        node = walk.pop()
        if isinstance(node, dict):
            walk += node.values()
            if "$ref" in node:
                document.follow(node)
                used.add(node["$ref"])
        elif isinstance(node, list):
            walk += node
    for kind, components in document.document["components"].items():
        for name in components if kind != "securitySchemes" else ():
            assert f"#/components/{kind}/{name}" in used, f"nothing uses {kind}/{name}"


def test_every_operation_says_what_the_server_may_always_answer(daemon):
    for (method, path), operation in fetch(daemon).operations.items():
        expected = {"400", "408", "413", "417", "431", "503"}
        if operation.get("security") != []:
            expected |= {"401", "403", "429", "500"}
        if "requestBody" in operation:
            expected.add("415")
        assert expected <= set(operation["responses"]), (method, path)
        assert operation["operationId"] and operation["summary"] and operation["tags"], (method, path)


def test_the_examples_are_valid_and_answered(daemon, document):
    for (method, path), operation in document.operations.items():
        if "requestBody" not in operation:
            continue
        media = operation["requestBody"]["content"]["application/json"]
        for example in [media["example"]] if "example" in media else [item["value"] for item in media["examples"].values()]:
            assert not document.errors(media["schema"], example), (path, example)
            headers, _ = check(daemon, document, method, path, example, {}, 200)
            assert headers["X-Fastgen-Ignored"] is None, (path, headers["X-Fastgen-Ignored"])


# Beside each other, as far as they may be, everything that a request may hold; what one body cannot have the next one has.
FULL = {
    CHAT: [
        chat(messages=[{"role": "system", "content": "s", "name": "n"},
                       {"role": "user", "content": [{"type": "text", "text": "t"}]},
                       {"role": "assistant", "reasoning_content": "r", "reasoning": "r", "refusal": None, "annotations": [], "tool_calls": [
                           {"id": "1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}]},
                       {"role": "tool", "tool_call_id": "1", "content": "x"}],
             tools=[{**TOOL, "function": {**TOOL["function"], "strict": True}}],
             tool_choice={"type": "function", "function": {"name": "look_up"}}, parallel_tool_calls=True, chat_template_kwargs={},
             add_generation_prompt=True, continue_final_message=False, stream=True, stream_options={
                 "include_usage": True, "continuous_usage_stats": True, "include_obfuscation": True},
             model="m", request_id="full", priority=1, cache_salt="s", top_p=1, top_k=5, min_p=0, seed=1, presence_penalty=0,
             frequency_penalty=0, repetition_penalty=1, logit_bias={"5": 0}, allowed_token_ids=[], bad_words=["w"], max_completion_tokens=6,
             min_tokens=1, stop=["x"], stop_token_ids=[5], include_stop_str_in_output=True, ignore_eos=False, skip_special_tokens=True,
             n=1, best_of=1, return_token_ids=True, return_tokens_as_token_ids=True, user="u", metadata={}, store=False,
             service_tier="auto", safety_identifier="i", prompt_cache_key="k", prompt_cache_retention="r", cache_prompt=True, id_slot=0,
             logprobs=True, top_logprobs=1, include_reasoning=True, separate_reasoning=True, modalities=["text"],
             add_special_tokens=False, add_special=False),
        *[chat(**more) for more in (
            {"prompt_logprobs": 1}, {"structured_outputs": {"json": {}, "disable_fallback": True, "backend": "auto"}},
            *[{"structured_outputs": {name: value}} for name, value in (
                ("regex", "a"), ("choice", ["a"]), ("grammar", 'root ::= "a"'), ("json_object", True),
                ("structural_tag", {"type": "structural_tag", "format": {"type": "const_string", "value": "a"}}))],
            {"guided_json": "{}"}, {"guided_regex": "a"}, {"guided_choice": ["a"], "guided_decoding_backend": "auto"},
            {"guided_grammar": 'root ::= "a"'}, {"guided_json_object": True}, {"json_schema": {}}, {"grammar": 'root ::= "a"'},
            {"regex": "a"}, {"ebnf": 'root ::= "a"'}, {"response_format": {"type": "text"}},
            {"response_format": {"type": "json_object", "schema": {}, "name": "n", "description": "d", "strict": True}},
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "description": "d", "schema": {}, "strict": True}}},
            {"response_format": {"type": "structural_tag", "format": {"type": "const_string", "value": "a"}}},
            {"response_format": {"type": "structural_tag", "structures": [{"begin": "<a>", "schema": {}, "end": "</a>"}],
                                 "triggers": ["<a>"]}})]],
    TEXT: [text(echo=True, logprobs=1, add_special_tokens=True, parse_special=True)],
    PARTS: [
        parts(input=[{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "t"}]},
                     {"role": "assistant", "content": [{"type": "output_text", "text": "t"}, {"type": "refusal", "refusal": "r"}]},
                     {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "t"}],
                      "summary": [{"type": "summary_text", "text": "t"}]},
                     {"type": "function_call", "call_id": "1", "name": "look_up", "arguments": "{}"},
                     {"type": "function_call_output", "call_id": "1", "output": "x"}],
              instructions="i", stream=True, stream_options={"include_obfuscation": True}, text={"format": {"type": "text"}, "verbosity": "medium"},
              tools=[{**FLAT_TOOL, "strict": True}], tool_choice={"type": "function", "name": "look_up"}, parallel_tool_calls=False,
              chat_template_kwargs={}, top_logprobs=0, include=[], reasoning={
                  "summary": "auto", "generate_summary": "auto", "context": "auto", "mode": "standard"},
              background=False, truncation="disabled", metadata={}, store=False, user="u", safety_identifier="i", prompt_cache_key="k",
              max_tool_calls=1, service_tier="auto", prompt_cache_retention="r", prompt_cache_options={}, access_programs=[], image={})],
    BLOCKS: [
        blocks(messages=[{"role": "user", "content": [{"type": "text", "text": "t"}]},
                         {"role": "assistant", "content": [{"type": "thinking", "thinking": "t", "signature": "s"},
                                                           {"type": "tool_use", "id": "1", "name": "look_up", "input": {}}]},
                         {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "x", "is_error": False}]}],
               system="s", tools=[{**CLAUDE_TOOL, "type": "custom", "description": "d", "strict": True}],
               tool_choice={"type": "tool", "name": "look_up", "disable_parallel_tool_use": True}, chat_template_kwargs={},
               thinking={"type": "adaptive", "display": "omitted"}, cache_control={}, speed="s", user_profile_id="u", workspace_id="w",
               stop_sequences=["x"], stream=False, output_config={"format": {"type": "text"}}, metadata={"user_id": "u"},
               service_tier="auto", diagnostics={})],
}


def names_of(document, schema):
    """Every property of every part of a schema."""
    schema = document.follow(schema)
    for part in [*schema.get("allOf", []), *schema.get("anyOf", []), *[schema["items"] for _ in [0] if "items" in schema]]:
        yield from names_of(document, part)
    for name, part in schema.get("properties", {}).items():
        yield name
        yield from names_of(document, part)


def names_in(value):
    for item in value if isinstance(value, list) else value.values() if isinstance(value, dict) else ():
        yield from names_in(item)
    yield from value if isinstance(value, dict) else ()


def test_everything_that_a_request_may_hold_is_read(daemon, document):
    """Nested fields too: none of them is named as ignored, but for the two that the document says are."""
    sent = set()
    for path, bodies in FULL.items():
        schema = document.operations["post", path]["requestBody"]["content"]["application/json"]["schema"]
        for body in bodies:
            assert not document.errors(schema, body), (path, body)
            headers, _ = check(daemon, document, "post", path, body, {}, 200)
            assert headers["X-Fastgen-Ignored"] is None, (path, body, headers["X-Fastgen-Ignored"])
            sent |= set(names_in(body))
        assert set(names_of(document, schema)) - sent <= {"encrypted_content", "budget_tokens"}, path


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_answers_of_what_generates_fit_their_schemas(daemon, document, stream):
    for path, body, status in BOTH_WAYS:
        check(daemon, document, "post", path, {**body, "stream": stream}, {}, status)


def test_answers_with_reasoning_and_calls_fit_their_schemas(document, tmp_path):
    model = write_script_model(str(tmp_path / "script"))
    kinds = set()
    with Daemon("--model", model) as script:
        for path, body in ((CHAT, chat(tools=TOOLS)), (PARTS, parts(tools=[{"type": "function", **TOOLS[0]["function"]}])),
                           (BLOCKS, blocks(tools=[{"name": "get_weather", "input_schema": {"type": "object"}}]))):
            for max_tokens in (2, 60):
                for stream in (False, True):
                    sent = {**body, "max_output_tokens" if path == PARTS else "max_tokens": max_tokens, "stream": stream}
                    _, data = check(script, document, "post", path, sent, {}, 200)
                    kinds |= {kind for kind in (b"reasoning_content", b"tool_calls", b"reasoning_text.delta", b"function_call_arguments.done",
                                                b"thinking_delta", b"input_json_delta", b"tool_use", b"output_text") if kind in data}
    assert len(kinds) == 8, kinds


def test_answers_of_all_routes_fit_their_schemas(daemon, document):
    for method, path, body, headers, status in ONE_WAY:
        check(daemon, document, method, path, body, headers, status)
    tested = {(method, path) for method, path, *_ in ONE_WAY} | {("get", "/models/{model}"), ("get", "/streams/{request_id}")}
    assert tested == set(document.operations)


def test_a_model_and_a_stream_by_name(daemon, document):
    name = json.loads(daemon.get("/v1/models")[2])["data"][0]["id"]
    check(daemon, document, "get", "/models/{model}", None, {}, 200, f"/models/{name}")
    check(daemon, document, "get", "/models/{model}", None, {}, 404, "/models/another")
    check(daemon, document, "get", "/streams/{request_id}", None, {}, 404, "/streams/nobody")
    for path, body in ((CHAT, chat()), (TEXT, text()), (PARTS, parts()), (BLOCKS, blocks())):
        for stream in (False, True):
            name = f"kept{path.replace('/', '-')}-{stream}"
            check(daemon, document, "post", path, {**body, "stream": stream, "request_id": name}, WINDOW, 200)
            check(daemon, document, "get", "/streams/{request_id}", None, {}, 200, f"/streams/{name}")
            check(daemon, document, "get", "/streams/{request_id}", None, {"Last-Event-ID": "rubbish"}, 400, f"/streams/{name}")


def example_of(operation):
    if "requestBody" not in operation:
        return None
    media = operation["requestBody"]["content"]["application/json"]
    return media.get("example") or next(iter(media["examples"].values()))["value"]


def real(path):
    return path.replace("{model}", "none").replace("{request_id}", "nobody")


def test_answers_to_strangers_and_to_keys_without_scope_or_room_fit_their_schemas(document, tmp_path):
    keys = Keys(tmp_path / "keys", poor=("infer", "tokens-per-minute=20"), watcher=("metrics", ""), worker=("infer", ""))
    with Daemon("--model", tiny_model.write(str(tmp_path / "tiny")), "--api-keys", keys.path) as keyed:
        for (method, path), operation in document.operations.items():
            body = example_of(operation)
            if operation.get("security") == []:
                check(keyed, document, method, path, body, {}, 501 if "later" in operation["tags"] else 200)
                continue
            for headers in ({}, {"x-api-key": "fgk_wrong"}):
                answered, _ = check(keyed, document, method, path, body, headers, 401, real(path))
                assert answered["WWW-Authenticate"] == "Bearer"
            if path == "/metrics":
                check(keyed, document, method, path, body, keys.bearer("worker"), 403)
            elif method == "post":
                check(keyed, document, method, path, body, keys.bearer("watcher"), 403)
        # A minute's tokens are soon spent.
        for path in (CHAT, TEXT, PARTS, BLOCKS):
            statuses = set()
            for _ in range(20):
                got, answered, data = keyed.request("POST", path, example_of(document.operations["post", path]), keys.bearer("poor"))
                statuses.add(got)
                assert not document.problems("post", path, got, answered, data), data
            assert 429 in statuses <= {200, 429}, (path, statuses)


def test_a_gateway_elsewhere_has_the_same_document_and_says_when_nobody_is_there(document):
    class Gateway:
        http = f"http://127.0.0.1:{free_port()}"
        request = Daemon.request

    gateway = Gateway()
    process = subprocess.Popen([program("fastgen-gateway"), "--listen", gateway.http.removeprefix("http://"), "--connect",
                                f"127.0.0.1:{free_port()}"], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                served = fetch(gateway).closed()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
        assert served.document == document.document
        for (method, path), operation in document.operations.items():
            here = {"/version": 200, "/openapi.json": 200, "/streams/{request_id}": 404}
            status = 501 if "later" in operation["tags"] else here.get(path, 503)
            check(gateway, document, method, path, example_of(operation), {}, status, real(path))
    finally:
        process.kill()
        process.wait()


def test_a_wrong_answer_is_seen(document):
    """The judge itself: what it is to find, it finds."""
    headers = {"X-Request-Id": "a", "Content-Type": "application/json"}
    good = {"object": "response.input_tokens", "input_tokens": 5}

    def problems(answer, status=200, path="/chat/completions/input_tokens", **more):
        return document.problems("post", path, status, {**headers, **more}, json.dumps(answer).encode())

    assert not problems(good)
    for wrong in ({}, {**good, "input_tokens": "5"}, {**good, "object": "x"}, {**good, "more": 1}):
        assert problems(wrong), wrong
    assert problems(good, status=201) and problems(good, **{"Content-Type": "text/plain"}) and problems(good, **{"X-Request-Id": "a b"})
    error = {"error": {"message": "m", "type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded"}}
    assert problems(error, status=429) and not problems(error, status=429, **{"Retry-After": "1"})
    event = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[]}\n\n'
    stream = {**headers, "Content-Type": "text/event-stream"}
    assert not document.problems("post", CHAT, 200, stream, event + b": keep-alive\n\ndata: [DONE]\n\n")
    for wrong in (event.replace(b"chunk", b"chunks"), b'data: {"error": {}}\n\n', event.replace(b'"created":1,', b"")):
        assert document.problems("post", CHAT, 200, stream, wrong), wrong


PROBES = [True, 5, -7, 0.5, 1e300, "", "x", [], ["x"], [5], [[]], [{}], {}, {"x": {}}]


def properties(document, schema):
    schema = document.follow(schema)
    for part in [*schema.get("allOf", []), *schema.get("anyOf", [])]:
        yield from properties(document, part)
    yield from schema.get("properties", {})


@pytest.mark.parametrize("path", [CHAT, TEXT, PARTS, BLOCKS, "/messages/count_tokens", "/chat/completions/input_tokens", "/tokenize",
                                  "/detokenize", "/cancel"])
def test_every_field_has_the_type_that_the_document_says(tiny, path):
    """What the schema refuses is refused with the field's name; what it allows is at least no wrong type."""
    document = fetch(tiny)
    media = document.operations["post", path]["requestBody"]["content"]["application/json"]
    examples = [media["example"]] if "example" in media else [item["value"] for item in media["examples"].values()]
    num_refused = 0
    for example in examples:
        for name in dict.fromkeys(properties(document, media["schema"])):
            for probe in PROBES:
                body = {**example, name: probe}
                status, _, answer = tiny.request("POST", "/v1" + path, body)
                error = json.loads(answer)["error"] if status == 400 else {}
                said = f"{error.get('param')} {error.get('message')}"
                if document.errors(media["schema"], body):
                    assert status == 400 and name in said, (name, probe, status, answer)
                    num_refused += 1
                else:
                    assert status in (200, 400), (name, probe, status, answer)
                    assert error.get("code") not in ("invalid_type", "missing") and f"{name} must be a" not in said, (name, probe, answer)
    assert num_refused >= 5
