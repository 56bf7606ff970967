"""Answers that are bound to a form, through the official OpenAI client: parsed schemas, forced tools, vLLM's fields."""
import json
import re
from typing import List, Literal

import openai
import pytest
from openai import BadRequestError, OpenAI
from pydantic import BaseModel, Field


QUESTION = [{"role": "user", "content": "How is the weather in Rome?"}]


class Report(BaseModel):
    city: Literal["Rome", "Paris"]
    degrees: int = Field(ge=-50, le=60)
    words: List[Literal["sunny", "windy", "wet"]] = Field(max_length=2)


class GetWeather(BaseModel):
    """Weather of a city."""
    city: Literal["Rome", "Paris"]
    days: int = Field(ge=1, le=9)


class GetTime(BaseModel):
    """Time in a city."""
    city: Literal["Rome", "Paris"]


TOOLS = [openai.pydantic_function_tool(GetWeather), openai.pydantic_function_tool(GetTime)]


@pytest.fixture(scope="module")
def caller(tool_daemon):
    return OpenAI(base_url=tool_daemon.http + "/v1", api_key="none", max_retries=0)


def ask(client, **more):
    return client.chat.completions.create(model="m", messages=QUESTION, **{"max_tokens": 100, "temperature": 1, "seed": 3, **more})


def check_report(report):
    assert isinstance(report, Report) and -50 <= report.degrees <= 60 and len(report.words) <= 2


def test_a_pydantic_model_is_parsed(client):
    for seed in range(4):
        answer = client.chat.completions.parse(model="m", messages=QUESTION, response_format=Report, temperature=1, seed=seed,
                                               max_tokens=200)
        assert answer.choices[0].finish_reason == "stop"
        check_report(answer.choices[0].message.parsed)


def test_a_streamed_pydantic_model_is_parsed(client):
    with client.chat.completions.stream(model="m", messages=QUESTION, response_format=Report, temperature=0,
                                        max_tokens=200) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    check_report(final.choices[0].message.parsed)
    assert "".join(deltas) == final.choices[0].message.content and len(deltas) > 1


def test_an_answer_that_max_tokens_cuts_says_length(client):
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(model="m", messages=QUESTION, response_format=Report, max_tokens=3)
    answer = ask(client, response_format={"type": "json_object"}, max_tokens=1)
    assert answer.choices[0].finish_reason == "length" and answer.choices[0].message.content.lstrip().startswith("{")


def test_every_choice_is_bound(client):
    answer = ask(client, n=4, extra_body={"guided_regex": "[A-Z]{2}[0-9]{2}"})
    assert [c.finish_reason for c in answer.choices] == ["stop"] * 4
    assert all(re.fullmatch("[A-Z]{2}[0-9]{2}", c.message.content) for c in answer.choices)


@pytest.mark.parametrize("field, value, form", [
    ("structured_outputs", {"choice": ["positive", "negative"]}, "positive|negative"),
    ("guided_choice", ["positive", "negative"], "positive|negative"),
    ("structured_outputs", {"regex": "\\d{3}-\\d{4}"}, "\\d{3}-\\d{4}"),
    ("regex", "\\d{3}-\\d{4}", "\\d{3}-\\d{4}"),
    ("structured_outputs", {"grammar": 'root ::= "a" [0-9] "b"'}, "a[0-9]b"),
    ("guided_grammar", 'root ::= "a" [0-9] "b"', "a[0-9]b"),
    ("grammar", 'root ::= "a" [0-9] "b"', "a[0-9]b"),
    ("ebnf", 'root ::= "a" [0-9] "b"', "a[0-9]b"),
    ("guided_json", {"type": "integer", "minimum": 10, "maximum": 99}, "[1-9][0-9]"),
    ("guided_json", '{"type":"boolean"}', "true|false"),
    ("json_schema", {"enum": ["x", 1]}, '"x"|1'),
    ("structured_outputs", {"json": {"const": "only"}}, '"only"'),
    ("response_format", {"type": "json_schema", "schema": {"type": "boolean"}}, "true|false"),
    ("response_format", {"type": "structural_tag", "format": {"type": "tag", "begin": "<n>", "end": "</n>", "content": {
        "type": "json_schema", "json_schema": {"enum": [1, 2]}}}}, "<n>[12]</n>"),
])
def test_every_dialect_binds_the_answer(daemon, field, value, form):
    for path, body in (("/v1/chat/completions", {"messages": QUESTION}), ("/v1/completions", {"prompt": "Answer:"})):
        status, answer = daemon.post(path, {**body, field: value, "temperature": 1, "seed": 2, "max_tokens": 40})
        assert status == 200, answer
        choice = answer["choices"][0]
        assert choice["finish_reason"] == "stop"
        assert re.fullmatch(form, choice["text"] if "text" in choice else choice["message"]["content"]), choice


def test_an_older_structural_tag_is_read(daemon):
    status, answer = daemon.post("/v1/chat/completions", {
        "messages": QUESTION, "max_tokens": 20, "temperature": 0, "response_format": {
            "type": "structural_tag", "triggers": ["<fn="],
            "structures": [{"begin": "<fn=a>", "schema": {"type": "object"}, "end": "</fn>"}]}})
    assert status == 200 and answer["choices"][0]["message"]["content"]


def test_a_required_call_is_made_and_fits(caller):
    for seed in range(3):
        answer = caller.chat.completions.parse(model="m", messages=QUESTION, tools=TOOLS, tool_choice="required", temperature=1,
                                               seed=seed, max_tokens=300, parallel_tool_calls=False)
        choice = answer.choices[0]
        assert choice.finish_reason == "tool_calls" and choice.message.content is None
        (call,) = choice.message.tool_calls
        assert isinstance(call.function.parsed_arguments, (GetWeather, GetTime))


def test_a_named_call_is_made_and_ends_with_stop(caller):
    named = {"type": "function", "function": {"name": "GetTime"}}
    answer = ask(caller, tools=TOOLS, tool_choice=named, max_tokens=200)
    choice = answer.choices[0]
    assert choice.finish_reason == "stop"
    (call,) = choice.message.tool_calls
    assert call.function.name == "GetTime" and GetTime.model_validate_json(call.function.arguments)


def test_a_streamed_call_adds_up(caller):
    arguments, names = "", []
    for chunk in ask(caller, tools=TOOLS, tool_choice="required", parallel_tool_calls=False, stream=True, max_tokens=300):
        for call in chunk.choices[0].delta.tool_calls or []:
            names += [call.function.name] if call.function.name else []
            arguments += call.function.arguments or ""
    assert len(names) == 1 and isinstance(json.loads(arguments), dict)


def test_forced_calls_that_max_tokens_cuts_leave_no_markup_behind(caller):
    """Wherever the cut comes: in a call's head, in its arguments, between two calls."""
    for max_tokens in (1, 2, 3, 5, 8, 13, 21, 24, 27, 30, 33, 36, 39, 42, 60):
        answer = ask(caller, tools=TOOLS, tool_choice="required", max_tokens=max_tokens, temperature=0).choices[0]
        assert not answer.message.content, (max_tokens, answer.message.content)
        pieces = [chunk.choices[0].delta.content or ""
                  for chunk in ask(caller, tools=TOOLS, tool_choice="required", max_tokens=max_tokens, temperature=0, stream=True)]
        assert "".join(pieces) == "", max_tokens


def test_a_format_beside_free_tools_binds_the_text(caller):
    answer = ask(caller, tools=TOOLS, response_format={"type": "json_schema", "json_schema": {
        "name": "r", "schema": Report.model_json_schema()}}, max_tokens=300)
    message = answer.choices[0].message
    if message.tool_calls:
        assert all(json.loads(call.function.arguments)["city"] for call in message.tool_calls)
    else:
        check_report(Report.model_validate_json(message.content))


@pytest.mark.parametrize("fields, param", [
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "unheard"}}}}, "response_format"),
    ({"extra_body": {"guided_json": {"not": {}}}}, "guided_json"),
    ({"extra_body": {"guided_json": "{"}}, "guided_json"),
    ({"extra_body": {"guided_regex": "("}}, "guided_regex"),
    ({"extra_body": {"structured_outputs": {"grammar": "root = "}}}, "structured_outputs.grammar"),
    ({"extra_body": {"grammar": 'start ::= "a"'}}, "grammar"),
    ({"extra_body": {"regex": "a" * 200000}}, "regex"),
])
def test_what_does_not_compile_is_refused_by_the_clients_name(client, fields, param):
    for stream in (False, True):
        with pytest.raises(BadRequestError) as refused:
            ask(client, stream=stream, **fields)
        assert refused.value.body["param"] == param


def test_calls_of_tools_need_a_parser(client):
    with pytest.raises(BadRequestError) as refused:
        ask(client, tools=TOOLS, tool_choice="required")
    assert "tool-call-parser" in refused.value.body["message"]
