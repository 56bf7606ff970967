"""OpenAI's client.responses, unmodified, against real daemons: the default model, and one whose text is a script."""
import asyncio
import json

import pytest
from openai import AsyncOpenAI, BadRequestError, OpenAI

from daemon import Daemon
from test_tools import write_script_model

SYSTEM = "You are a helpful assistant."
QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
TOOLS = [{"type": "function", "name": "get_weather", "description": "Tells the weather.", "strict": False,
          "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}]


@pytest.fixture(scope="module")
def responses(client):
    return client.responses


@pytest.fixture(scope="module")
def scripted(tmp_path_factory):
    model = write_script_model(str(tmp_path_factory.mktemp("script") / "model"))
    with Daemon("--model", model) as daemon:
        yield OpenAI(base_url=daemon.http, api_key="none", max_retries=0).responses


def ask(responses, **more):
    return responses.create(**{"model": "m", "instructions": SYSTEM, "input": QUESTION, "temperature": 0,
                               "max_output_tokens": 20, **more})


def weather(responses, **more):
    return responses.create(**{"model": "m", "input": "How is Rome?", "tools": TOOLS, "temperature": 0,
                               "max_output_tokens": 64, **more})


def without_ids(response):
    output = [item.model_dump(exclude={"id", "call_id", "parsed_arguments"}) for item in response.output]
    for item in output:
        for part in item.get("content") or []:
            part.pop("parsed", None)
    return (response.status, output, response.usage.input_tokens, response.usage.output_tokens)


def test_a_response_has_its_text_status_and_usage(responses):
    response = ask(responses, metadata={"a": "b"})
    assert response.id.startswith("resp_") and response.object == "response"
    assert (response.status, response.error, response.incomplete_details) == ("completed", None, None)
    assert response.output_text == ANSWER
    (message,) = response.output
    assert (message.type, message.role, message.status) == ("message", "assistant", "completed")
    assert response.usage.output_tokens == 8
    assert response.usage.total_tokens == response.usage.input_tokens + 8
    assert (response.instructions, response.metadata, response.temperature) == (SYSTEM, {"a": "b"}, 0)
    assert response.tools == [] and response.tool_choice == "auto" and response.parallel_tool_calls


def test_a_stream_adds_up_to_the_same_response(responses):
    whole = ask(responses)
    with responses.stream(model="m", instructions=SYSTEM, input=QUESTION, temperature=0,
                          max_output_tokens=20) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    names = [event.type for event in events]
    assert names[:4] == ["response.created", "response.in_progress", "response.output_item.added",
                         "response.content_part.added"]
    assert names[-4:] == ["response.output_text.done", "response.content_part.done", "response.output_item.done",
                          "response.completed"]
    assert set(names[4:-4]) == {"response.output_text.delta"}
    assert "".join(event.delta for event in events[4:-4]) == ANSWER
    assert without_ids(final) == without_ids(whole)
    # How the text is cut into deltas is the moment's affair.
    raw = [event.type for event in ask(responses, stream=True)]
    assert raw[:4] + raw[-4:] == names[:4] + names[-4:] and set(raw[4:-4]) == set(names[4:-4])


def test_the_async_client_gets_the_same(daemon):
    async def run():
        async with AsyncOpenAI(base_url=daemon.http + "/v1", api_key="foo", max_retries=0) as client:
            whole = await ask(client.responses)
            async with client.responses.stream(model="m", instructions=SYSTEM, input=QUESTION, temperature=0,
                                               max_output_tokens=20) as stream:
                final = await stream.get_final_response()
            return whole.output_text, final.output_text
    assert asyncio.run(run()) == (ANSWER, ANSWER)


def test_items_are_the_same_as_a_string(responses):
    response = ask(responses, instructions=None, input=[
        {"role": "developer", "content": SYSTEM},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": QUESTION}]}])
    assert response.output_text == ANSWER


def test_a_conversation_goes_on_from_the_output(responses):
    first = ask(responses)
    second = ask(responses, input=[{"role": "user", "content": QUESTION}, *first.output,
                                   {"role": "user", "content": "And of Germany?"}])
    assert second.status in ("completed", "incomplete") and second.output_text
    assert second.usage.input_tokens > first.usage.input_tokens + 8


def test_a_response_cut_by_length_is_incomplete(responses):
    response = ask(responses, max_output_tokens=3)
    assert response.status == "incomplete" and response.incomplete_details.reason == "max_output_tokens"
    assert response.output[0].status == "incomplete" and response.usage.output_tokens == 3
    assert [event.type for event in ask(responses, max_output_tokens=3, stream=True)][-1] == "response.incomplete"


def test_logprobs_come_when_included(responses):
    response = ask(responses, include=["message.output_text.logprobs"], top_logprobs=2)
    logprobs = response.output[0].content[0].logprobs
    text = b"".join(bytes(logprob.bytes) for logprob in logprobs).decode()
    assert text.startswith(ANSWER)
    assert all(len(logprob.top_logprobs) == 2 and logprob.logprob <= 0 for logprob in logprobs)
    streamed = [logprob for event in ask(responses, include=["message.output_text.logprobs"], top_logprobs=2, stream=True)
                if event.type == "response.output_text.delta" for logprob in event.logprobs]
    assert [logprob.token for logprob in streamed] == [logprob.token for logprob in logprobs]


@pytest.mark.parametrize("field, value", [
    ("previous_response_id", "resp_1"), ("conversation", "c"), ("background", True), ("truncation", "auto"),
    ("prompt", {"id": "p"}), ("tools", [{"type": "web_search"}])])
def test_what_needs_state_or_servers_is_refused_by_name(responses, field, value):
    with pytest.raises(BadRequestError) as refused:
        ask(responses, **{field: value})
    assert refused.value.body["param"].split("[")[0] == field


def test_store_is_accepted_and_nothing_is_stored(responses):
    assert ask(responses, store=True).model_dump()["store"] is False


def test_tools_and_reasoning_come_as_items(scripted):
    response = weather(scripted)
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call"]
    reasoning, message, call = response.output
    assert reasoning.content[0].text == "They want weather."
    assert message.content[0].text == "Looking."
    assert call.name == "get_weather" and json.loads(call.arguments) == {"city": "Rome"}
    assert response.usage.output_tokens_details.reasoning_tokens == 3
    with scripted.stream(model="m", input="How is Rome?", tools=TOOLS, temperature=0, max_output_tokens=64) as stream:
        names = {event.type for event in stream}
        final = stream.get_final_response()
    assert without_ids(final) == without_ids(response)
    assert {"response.reasoning_text.delta", "response.function_call_arguments.delta",
            "response.function_call_arguments.done"} <= names


def test_a_conversation_goes_on_after_a_call(scripted):
    first = weather(scripted)
    call = first.output[-1]
    again = weather(scripted, input=[{"role": "user", "content": "How is Rome?"}, *first.output,
                                     {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny."}])
    assert again.output[-1].type == "function_call" and again.output[-1].call_id != call.call_id
    none = weather(scripted, tool_choice="none")
    assert [item.type for item in none.output] == ["reasoning", "message"]


def test_a_call_that_was_cut_is_incomplete(scripted):
    response = weather(scripted, max_output_tokens=7)
    assert response.status == "incomplete"
    assert (response.output[-1].status, response.output[-1].arguments) == ("incomplete", "{\"city\"")
