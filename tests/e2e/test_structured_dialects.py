"""Answers bound to a form over the Responses and Messages dialects, through their official clients, sync and async.

The chat twin of this file is test_structured.py; here is what that lacks, the async client. The default model knows neither tools nor schemas: what fits, fits
because it was bound.
"""
import asyncio
import json
from typing import List, Literal

import openai
import pytest
from anthropic import Anthropic, AsyncAnthropic
from anthropic import BadRequestError as AnthropicBadRequest
from openai import AsyncOpenAI, BadRequestError, OpenAI
from pydantic import BaseModel, TypeAdapter

from test_structured import GetTime, GetWeather, Report, check_report

QUESTION = "How is the weather in Rome?"
TURN = [{"role": "user", "content": QUESTION}]
TOOLS = [{"type": "function", "name": t.__name__, "description": t.__doc__, "strict": True,
          "parameters": openai.pydantic_function_tool(t)["function"]["parameters"]} for t in (GetWeather, GetTime)]
BLOCK_TOOLS = [{"name": t["name"], "description": t["description"], "input_schema": t["parameters"]} for t in TOOLS]
ARGUMENTS = {"GetWeather": GetWeather, "GetTime": GetTime}


class Sky(BaseModel):
    sunny: bool
    word: Literal["warm", "wet"]


class Mood(BaseModel):
    """Ends by itself: the anthropic client takes bounds of numbers and lists out of a schema."""
    city: Literal["Rome", "Paris"]
    sky: Sky


@pytest.fixture(scope="module")
def caller(tool_daemon):
    return OpenAI(base_url=tool_daemon.http + "/v1", api_key="none", max_retries=0).responses


@pytest.fixture(scope="module")
def messages(tool_daemon):
    return Anthropic(base_url=tool_daemon.http, api_key="none", max_retries=0).messages


def in_async_openai(daemon, work):
    async def run():
        async with AsyncOpenAI(base_url=daemon.http + "/v1", api_key="none", max_retries=0) as client:
            return await work(client)
    return asyncio.run(run())


def in_async_anthropic(daemon, work):
    async def run():
        async with AsyncAnthropic(base_url=daemon.http, api_key="none", max_retries=0) as client:
            return await work(client)
    return asyncio.run(run())


# Chat.

def test_the_async_chat_client_parses_whole_and_streamed(tool_daemon):
    asked = {"model": "m", "messages": TURN, "response_format": Report, "temperature": 0, "max_tokens": 200}

    async def work(client):
        whole = await client.chat.completions.parse(**asked)
        async with client.chat.completions.stream(**asked) as stream:
            deltas = [event.delta async for event in stream if event.type == "content.delta"]
            return whole, deltas, await stream.get_final_completion()
    whole, deltas, final = in_async_openai(tool_daemon, work)
    check_report(whole.choices[0].message.parsed)
    assert final.choices[0].message.parsed == whole.choices[0].message.parsed
    assert "".join(deltas) == whole.choices[0].message.content and len(deltas) > 1


def test_the_async_chat_client_streams_a_forced_call(tool_daemon):
    async def work(client):
        async with client.chat.completions.stream(
                model="m", messages=TURN, tools=[openai.pydantic_function_tool(t) for t in (GetWeather, GetTime)],
                tool_choice="required", parallel_tool_calls=False, temperature=0, max_tokens=300) as stream:
            events = [event async for event in stream]
            return events, await stream.get_final_completion()
    events, final = in_async_openai(tool_daemon, work)
    (done,) = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    pieces = [event.arguments_delta for event in events if event.type == "tool_calls.function.arguments.delta"]
    (call,) = final.choices[0].message.tool_calls
    assert "".join(pieces) == done.arguments == call.function.arguments and len(pieces) > 1
    assert isinstance(call.function.parsed_arguments, (GetWeather, GetTime))
    assert final.choices[0].finish_reason == "tool_calls"


# Responses.

PARSED = {"model": "m", "input": QUESTION, "text_format": Report, "max_output_tokens": 200}


def call_of(response):
    """The one call of a response, its arguments checked against their model."""
    (call,) = [item for item in response.output if item.type == "function_call"]
    assert response.status == "completed" and call.status == "completed"
    ARGUMENTS[call.name].model_validate_json(call.arguments)
    return call


def without_ids(response):
    return [item.model_dump(exclude={"id", "call_id", "parsed_arguments"}) for item in response.output]


def test_responses_parse_gives_the_model(caller):
    for seed in range(3):
        response = caller.parse(**PARSED, temperature=1, extra_body={"seed": seed})
        assert response.status == "completed"
        check_report(response.output_parsed)


def test_responses_stream_gives_the_model(caller):
    whole = caller.parse(**PARSED, temperature=0)
    with caller.stream(**PARSED, temperature=0) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    check_report(final.output_parsed)
    assert "".join(deltas) == final.output_text == whole.output_text and len(deltas) > 1
    assert final.output_parsed == whole.output_parsed


def test_the_async_responses_client_parses_whole_and_streamed(tool_daemon):
    async def work(client):
        whole = await client.responses.parse(**PARSED, temperature=0)
        async with client.responses.stream(**PARSED, temperature=0) as stream:
            final = await stream.get_final_response()
        return whole, final
    whole, final = in_async_openai(tool_daemon, work)
    check_report(whole.output_parsed)
    assert whole.output_parsed == final.output_parsed


def test_text_format_takes_a_plain_schema_and_json_object(caller):
    schema = {"type": "json_schema", "name": "mood", "schema": {**Mood.model_json_schema(), "additionalProperties": False}}
    for stream in (False, True):
        answer = caller.create(model="m", input=QUESTION, max_output_tokens=100, temperature=0, text={"format": schema},
                               stream=stream)
        text = answer.output_text if not stream else "".join(
            event.delta for event in answer if event.type == "response.output_text.delta")
        Mood.model_validate_json(text)
    begun = caller.create(model="m", input=QUESTION, max_output_tokens=1, temperature=0,
                          text={"format": {"type": "json_object"}})
    assert begun.status == "incomplete" and begun.output_text.lstrip().startswith("{")


def test_a_cut_response_is_incomplete_and_a_beginning_of_what_is_allowed(caller):
    response = caller.create(model="m", input=QUESTION, max_output_tokens=4, temperature=0, text={
        "format": {"type": "json_schema", "name": "r", "schema": Report.model_json_schema()}})
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert response.output_text.lstrip().startswith("{")


@pytest.mark.parametrize("choice, names", [("required", {"GetWeather", "GetTime"}),
                                           ({"type": "function", "name": "GetTime"}, {"GetTime"})])
def test_a_forced_function_call_is_made_and_fits(caller, choice, names):
    body = {"model": "m", "input": QUESTION, "tools": TOOLS, "tool_choice": choice, "parallel_tool_calls": False,
            "temperature": 0, "max_output_tokens": 300}
    whole = caller.create(**body)
    assert call_of(whole).name in names and not whole.output_text
    with caller.stream(**body) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert without_ids(final) == without_ids(whole)
    pieces = "".join(event.delta for event in events if event.type == "response.function_call_arguments.delta")
    (done,) = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert pieces == done.arguments == call_of(final).arguments


def test_parsed_arguments_are_the_tools_own_model(caller):
    response = caller.parse(model="m", input=QUESTION, tools=[openai.pydantic_function_tool(GetWeather)],
                            tool_choice="required", parallel_tool_calls=False, max_output_tokens=300, temperature=1,
                            extra_body={"seed": 5})
    assert isinstance(response.output[-1].parsed_arguments, GetWeather)


def test_the_async_responses_client_gets_a_forced_call(tool_daemon):
    async def work(client):
        body = {"model": "m", "input": QUESTION, "tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False,
                "temperature": 0, "max_output_tokens": 300}
        whole = await client.responses.create(**body)
        events = [event async for event in await client.responses.create(**body, stream=True)]
        return whole, events
    whole, events = in_async_openai(tool_daemon, work)
    assert call_of(events[-1].response).arguments == call_of(whole).arguments


def test_no_call_is_made_where_none_may_be(caller):
    response = caller.create(model="m", input=QUESTION, tools=TOOLS, tool_choice="none", temperature=0, max_output_tokens=20)
    assert {item.type for item in response.output} == {"message"}


@pytest.mark.parametrize("more, param", [
    ({"text": {"format": {"type": "yaml"}}}, "text.format.type"),
    ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
    ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "unheard"}}}}, "text.format"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": TOOLS, "tool_choice": {"type": "function", "name": "absent"}}, "tool_choice"),
])
def test_a_form_that_cannot_be_is_refused_in_the_dialects_words(caller, more, param):
    for stream in (False, True):
        with pytest.raises(BadRequestError) as refused:
            caller.create(model="m", input=QUESTION, max_output_tokens=5, stream=stream, **more)
        assert refused.value.body["param"] == param, refused.value.body


# Messages.

def ask(messages, /, **more):
    return messages.create(**{"model": "m", "max_tokens": 300, "messages": TURN, "extra_body": {"temperature": 0}, **more})


def use_of(message):
    """The one tool_use block of a message, its input checked."""
    (use,) = [block for block in message.content if block.type == "tool_use"]
    ARGUMENTS[use.name].model_validate(use.input)
    assert message.stop_reason == "tool_use" and not [b for b in message.content if b.type == "text" and b.text.strip()]
    return use


def test_messages_parse_gives_the_model(messages):
    for seed in range(3):
        message = messages.parse(model="m", max_tokens=300, messages=TURN, output_format=Mood,
                                 extra_body={"temperature": 0.5, "seed": seed})
        assert message.stop_reason == "end_turn" and isinstance(message.parsed_output, Mood)


def test_messages_stream_gives_the_model(messages):
    whole = messages.parse(model="m", max_tokens=300, messages=TURN, output_format=Mood, extra_body={"temperature": 0})
    with messages.stream(model="m", max_tokens=300, messages=TURN, output_format=Mood, extra_body={"temperature": 0}) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert len(pieces) > 1 and Mood.model_validate_json("".join(pieces)) == final.parsed_output == whole.parsed_output


def test_the_async_messages_client_parses_whole_and_streamed(tool_daemon):
    async def work(client):
        asked = {"model": "m", "max_tokens": 300, "messages": TURN, "output_format": Mood, "extra_body": {"temperature": 0}}
        whole = await client.messages.parse(**asked)
        async with client.messages.stream(**asked) as stream:
            final = await stream.get_final_message()
        return whole.parsed_output, final.parsed_output
    whole, final = in_async_anthropic(tool_daemon, work)
    assert isinstance(whole, Mood) and whole == final


def test_output_config_takes_a_plain_schema(messages):
    schema = {"type": "array", "items": {"enum": ["warm", "wet"]}, "minItems": 1, "maxItems": 3}
    message = ask(messages, output_config={"format": {"type": "json_schema", "schema": schema}})
    assert 1 <= len(TypeAdapter(List[Literal["warm", "wet"]]).validate_json(message.content[0].text)) <= 3
    cut = ask(messages, max_tokens=2, output_config={"format": {"type": "json_schema", "schema": schema}})
    assert cut.stop_reason == "max_tokens" and cut.content[0].text.startswith("[")


@pytest.mark.parametrize("choice, names", [({"type": "any"}, {"GetWeather", "GetTime"}),
                                           ({"type": "tool", "name": "GetTime"}, {"GetTime"})])
def test_a_forced_tool_use_is_made_and_fits(messages, choice, names):
    choice = {**choice, "disable_parallel_tool_use": True}
    whole = ask(messages, tools=BLOCK_TOOLS, tool_choice=choice)
    assert use_of(whole).name in names
    with messages.stream(model="m", max_tokens=300, messages=TURN, tools=BLOCK_TOOLS, tool_choice=choice,
                         extra_body={"temperature": 0}) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    use = use_of(final)
    assert (use.name, use.input) == (use_of(whole).name, use_of(whole).input)
    assert json.loads("".join(pieces)) == use.input
    assert final.usage.output_tokens == whole.usage.output_tokens


def test_the_async_messages_client_gets_a_forced_tool_use(tool_daemon):
    async def work(client):
        asked = {"model": "m", "max_tokens": 300, "messages": TURN, "tools": BLOCK_TOOLS, "extra_body": {"temperature": 0},
                 "tool_choice": {"type": "any", "disable_parallel_tool_use": True}}
        whole = await client.messages.create(**asked)
        async with client.messages.stream(**asked) as stream:
            return whole, await stream.get_final_message()
    whole, final = in_async_anthropic(tool_daemon, work)
    assert use_of(whole).input == use_of(final).input


def test_tools_may_be_used_or_not_and_none_means_none(messages):
    for choice in ({"type": "auto"}, {"type": "none"}):
        message = ask(messages, tools=BLOCK_TOOLS, tool_choice=choice, max_tokens=20)
        types = {block.type for block in message.content}
        assert types <= {"text", "tool_use"} and (choice["type"] == "auto" or types == {"text"})


@pytest.mark.parametrize("more, words", [
    ({"output_config": {"format": {"type": "yaml"}}}, "output_config.format.type"),
    ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
    ({"output_config": {"format": {"type": "json_schema", "schema": {"type": "unheard"}}}}, "output_config.format"),
    ({"tool_choice": {"type": "any"}}, "tool_choice"),
    ({"tools": BLOCK_TOOLS, "tool_choice": {"type": "tool", "name": "absent"}}, "tool_choice"),
    ({"tools": BLOCK_TOOLS, "tool_choice": {"type": "sometimes"}}, "tool_choice.type"),
])
def test_a_form_that_cannot_be_is_refused_in_anthropics_shape(messages, more, words):
    for stream in (False, True):
        with pytest.raises(AnthropicBadRequest) as refused:
            ask(messages, stream=stream, **more)
        assert refused.value.body["error"]["type"] == "invalid_request_error"
        assert words in refused.value.body["error"]["message"], refused.value.body
