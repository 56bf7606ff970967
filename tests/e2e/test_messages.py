"""The official Anthropic client, unmodified, against real daemons: the default model, and one whose text is a script."""
import asyncio
import json

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic

from daemon import Daemon
from test_tools import write_script_model

SYSTEM = "You are a helpful assistant."
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
ANSWER = "The capital of France is Paris."
GREEDY = {"temperature": 0}
TOOLS = [{"name": "get_weather", "description": "Tells the weather.",
          "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}]


@pytest.fixture(scope="module")
def messages(daemon):
    return Anthropic(base_url=daemon.http, api_key="foo", max_retries=0).messages


@pytest.fixture(scope="module")
def scripted(tmp_path_factory):
    model = write_script_model(str(tmp_path_factory.mktemp("script") / "model"))
    with Daemon("--model", model) as daemon:
        yield Anthropic(base_url=daemon.http, api_key="none", max_retries=0).messages


def ask(messages, /, **more):
    more.setdefault("max_tokens", 20)
    return messages.create(**{"model": "m", "system": SYSTEM, "messages": QUESTION, "extra_body": GREEDY, **more})


def weather(messages, /, **more):
    return messages.create(**{"model": "m", "max_tokens": 64, "extra_body": GREEDY, "tools": TOOLS,
                              "messages": [{"role": "user", "content": "How is Rome?"}], **more})


def without_ids(message):
    dumped = message.model_dump(exclude={"id"})
    # The twin may have found the prompt in the cache.
    usage = dumped["usage"]
    dumped["usage"] = (usage["input_tokens"] + usage["cache_read_input_tokens"], usage["output_tokens"])
    for block in dumped["content"]:
        block.pop("id", None)
        block.pop("parsed_output", None)  # what the client's stream adds
    return dumped


def test_an_answer_has_its_text_reason_and_usage(messages):
    answer = ask(messages)
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", "m")
    assert answer.id.startswith("msg_") and answer._request_id in answer.id
    assert [block.type for block in answer.content] == ["text"]
    assert answer.content[0].text == ANSWER
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    assert answer.usage.output_tokens == 8
    assert answer.usage.input_tokens + answer.usage.cache_read_input_tokens > 20


def test_a_stream_adds_up_to_the_same_message(messages):
    whole = ask(messages)
    with messages.stream(model="m", system=SYSTEM, messages=QUESTION, max_tokens=20, extra_body=GREEDY) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert len(pieces) > 3 and "".join(pieces) == ANSWER
    assert without_ids(final) == without_ids(whole)
    names = [event.type for event in ask(messages, stream=True)]
    assert names[:2] == ["message_start", "content_block_start"]
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(names[2:-3]) == {"content_block_delta"}


def test_the_async_client_gets_the_same(daemon):
    async def run():
        async with AsyncAnthropic(base_url=daemon.http, api_key="foo", max_retries=0) as client:
            whole = await ask(client.messages)
            async with client.messages.stream(model="m", system=SYSTEM, messages=QUESTION, max_tokens=20,
                                              extra_body=GREEDY) as stream:
                text = "".join([piece async for piece in stream.text_stream])
            count = await client.messages.count_tokens(model="m", system=SYSTEM, messages=QUESTION)
            return whole.content[0].text, text, count.input_tokens
    whole, text, count = asyncio.run(run())
    assert whole == text == ANSWER and count > 20


def test_counted_tokens_are_those_that_an_answer_uses(messages):
    usage = ask(messages).usage
    counted = messages.count_tokens(model="m", system=SYSTEM, messages=QUESTION)
    assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens
    # Of a prompt that comes again, whole blocks are read from the cache.
    long = {"system": SYSTEM * 30, "max_tokens": 2}
    first, second = ask(messages, **long).usage, ask(messages, **long).usage
    assert second.cache_read_input_tokens > first.cache_read_input_tokens or first.cache_read_input_tokens > 100
    assert (second.input_tokens + second.cache_read_input_tokens
            == messages.count_tokens(model="m", system=SYSTEM * 30, messages=QUESTION).input_tokens)


def test_blocks_are_the_same_as_strings(messages):
    blocks = ask(messages, system=[{"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}}],
                 messages=[{"role": "user", "content": [{"type": "text", "text": QUESTION[0]["content"]}]}])
    assert blocks.content[0].text == ANSWER


def test_the_answer_goes_on_with_what_the_assistant_began(messages):
    answer = ask(messages, messages=QUESTION + [{"role": "assistant", "content": "The capital of"}])
    assert answer.content[0].text == " France is Paris."


def test_stop_sequences_and_lengths_are_told(messages):
    stopped = ask(messages, stop_sequences=["zzz", " of Fr"])
    assert stopped.content[0].text == "The capital"
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", " of Fr")
    cut = ask(messages, max_tokens=3)
    assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 3)


def test_a_stream_may_be_abandoned(messages):
    with messages.stream(model="m", messages=QUESTION, max_tokens=1000) as stream:
        for _ in stream.text_stream:
            break
    # The daemon goes on answering, and this one's work is gone.
    assert ask(messages).content[0].text == ANSWER


def test_errors_are_the_clients_own(messages, daemon):
    with pytest.raises(anthropic.BadRequestError) as refused:
        ask(messages, messages=[{"role": "user", "content": [{"type": "image", "source": {
            "type": "base64", "media_type": "image/png", "data": ""}}]}])
    assert refused.value.body["error"]["type"] == "invalid_request_error"
    assert "messages[0].content[0].type" in refused.value.body["error"]["message"]
    with pytest.raises(anthropic.BadRequestError) as refused:
        ask(messages, max_tokens=20000)
    assert "max_tokens" in refused.value.body["error"]["message"]
    assert refused.value.request_id and refused.value.body["request_id"] == refused.value.request_id
    with pytest.raises(anthropic.NotFoundError) as missing:
        Anthropic(base_url=daemon.http, api_key="foo", max_retries=0).messages.batches.list()
    assert missing.value.body["error"]["type"] == "not_found_error"


def test_tools_and_thinking_come_as_blocks(scripted):
    answer = weather(scripted)
    assert [block.type for block in answer.content] == ["thinking", "text", "tool_use"]
    thinking, text, call = answer.content
    assert (thinking.thinking, text.text) == ("They want weather.", "Looking.")
    assert (call.name, call.input) == ("get_weather", {"city": "Rome"})
    assert answer.stop_reason == "tool_use"
    with scripted.stream(model="m", max_tokens=64, extra_body=GREEDY, tools=TOOLS,
                         messages=[{"role": "user", "content": "How is Rome?"}]) as stream:
        events = [event.type for event in stream]
        final = stream.get_final_message()
    assert without_ids(final) == without_ids(answer)
    assert {"thinking", "text", "input_json"} <= set(events)
    hidden = weather(scripted, thinking={"type": "adaptive", "display": "omitted"})
    assert [block.type for block in hidden.content] == ["text", "tool_use"]


def test_a_conversation_goes_on_after_a_call(scripted):
    answer = weather(scripted)
    call = answer.content[-1]
    again = weather(scripted, messages=[
        {"role": "user", "content": "How is Rome?"}, {"role": "assistant", "content": answer.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "Sunny."}]}])
    assert again.stop_reason == "tool_use" and again.content[-1].id != call.id
    none = weather(scripted, tool_choice={"type": "none"})
    assert none.stop_reason == "end_turn" and {block.type for block in none.content} == {"thinking", "text"}


def test_a_call_that_was_cut_says_so(scripted):
    cut = weather(scripted, max_tokens=7)
    assert cut.stop_reason == "max_tokens"
    assert (cut.content[-1].type, cut.content[-1].input) == ("tool_use", {})


def test_an_error_has_the_same_id_in_its_body_and_headers(daemon):
    for path, body in (("/v1/messages", b"{"), ("/v1/messages", {"ignore_eos": True}), ("/v1/messages/absent", {}),
                       ("/v1/messages/count_tokens", {"messages": 5})):
        _, headers, data = daemon.request("POST", path, body)
        told = json.loads(data)["request_id"]
        assert told and told == headers["request-id"] == headers["X-Request-Id"]
        _, headers, data = daemon.request("POST", path, body, {"X-Request-Id": "mine"})
        assert json.loads(data)["request_id"] == headers["request-id"] == headers["X-Request-Id"] == "mine"
    _, headers, data = daemon.request("GET", "/v1/messages", None, {"X-Request-Id": "mine"})
    assert json.loads(data)["request_id"] == headers["X-Request-Id"] == "mine"
