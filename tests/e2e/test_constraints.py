"""Constraints over gRPC on the default model: what comes back is what was asked for, or a beginning of it."""
import json
import random
import re
import threading

import grpc
import pytest

from test_grpc import generate

PERSON = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "minimum": 0, "maximum": 120},
                                           "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 3}},
          "required": ["name", "age", "tags"], "additionalProperties": False}


def ask(stub, pb, constraint, max_tokens=200, temperature=1.0, seed=1, text="Answer:", **fields):
    request = pb.inference.GenerateRequest(
        text=text, constraint=constraint, sampling=pb.inference.Sampling(temperature=temperature, seed=seed),
        stopping=pb.inference.Stopping(max_tokens=max_tokens), **fields)
    _, deltas, finished = generate(stub, request)
    return "".join(d.text for d in deltas), finished


def refusal(stub, pb, constraint, **fields):
    request = pb.inference.GenerateRequest(text="x", constraint=constraint, stopping=pb.inference.Stopping(max_tokens=4), **fields)
    with pytest.raises(grpc.RpcError) as error:
        list(stub.Generate(request))
    return error.value


def validate(value, schema):
    """The part of JSON Schema that these tests use."""
    if "enum" in schema:
        assert value in schema["enum"]
        return
    if "anyOf" in schema:
        for option in schema["anyOf"]:
            try:
                return validate(value, option)
            except AssertionError:
                pass
        raise AssertionError(value)
    kind = schema["type"]
    if kind == "object":
        assert isinstance(value, dict) and set(schema.get("required", [])) <= set(value)
        for key, member in value.items():
            assert key in schema["properties"], key
            validate(member, schema["properties"][key])
    elif kind == "array":
        assert isinstance(value, list) and schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", 10**9)
        for item in value:
            validate(item, schema["items"])
    elif kind == "string":
        assert isinstance(value, str) and schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 10**9)
        assert "pattern" not in schema or re.fullmatch(schema["pattern"], value)
    elif kind == "integer":
        assert isinstance(value, int) and not isinstance(value, bool)
        assert schema.get("minimum", value) <= value <= schema.get("maximum", value)
    elif kind == "boolean":
        assert isinstance(value, bool)
    else:
        assert kind == "null" and value is None


def random_schema(draw, depth=0):
    kinds = ["string", "integer", "boolean", "null", "enum", "bounded", "pattern"] + ["object", "array", "anyOf"] * (depth < 3)
    kind = draw.choice(kinds)
    if kind == "enum":
        return {"enum": draw.sample(["a", "b\"c", 1, -2.5, None, True, {"x": [1]}, "\u00e9\u20ac"], 3)}
    if kind == "bounded":
        low = draw.randrange(4)
        return {"type": "string", "minLength": low, "maxLength": low + draw.randrange(8)}
    if kind == "pattern":
        return {"type": "string", "pattern": draw.choice(["[a-z]{2,5}", "[^x]{1,4}", "\\d{3}-\\d{4}", "(yes|no)", ".{0,6}"])}
    if kind == "object":
        names = draw.sample(["a", "b c", "d\"e", "long_property_name", "\u00fc"], draw.randrange(1, 5))
        return {"type": "object", "properties": {n: random_schema(draw, depth + 1) for n in names}, "additionalProperties": False,
                "required": [n for n in names if draw.random() < 0.7]}
    if kind == "array":
        return {"type": "array", "items": random_schema(draw, depth + 1), "maxItems": draw.randrange(1, 4)}
    if kind == "anyOf":
        return {"anyOf": [random_schema(draw, depth + 1) for _ in range(2)]}
    if kind == "integer":
        return draw.choice([{"type": "integer"}, {"type": "integer", "minimum": -5, "maximum": 2000}])
    return {"type": kind}


def test_a_schema_is_kept(stub, pb):
    constraint = pb.inference.Constraint(json_schema=json.dumps(PERSON))
    for seed in range(5):
        text, finished = ask(stub, pb, constraint, seed=seed)
        if finished.reason == pb.inference.STOP:
            validate(json.loads(text), PERSON)


def test_whatever_the_schema_a_whole_answer_is_valid(stub, pb):
    draw = random.Random(7)
    num_whole = 0
    for seed in range(40):
        schema = random_schema(draw)
        text, finished = ask(stub, pb, pb.inference.Constraint(json_schema=json.dumps(schema)), max_tokens=120, seed=seed)
        assert finished.reason in (pb.inference.STOP, pb.inference.LENGTH)
        if finished.reason == pb.inference.STOP:
            num_whole += 1
            validate(json.loads(text), schema)
    assert num_whole >= 20


def test_a_cut_answer_says_length_and_is_a_beginning(stub, pb):
    text, finished = ask(stub, pb, pb.inference.Constraint(json_schema=json.dumps(PERSON)), max_tokens=5)
    assert finished.reason == pb.inference.LENGTH and text.lstrip().startswith("{")
    with pytest.raises(ValueError):
        json.loads(text)


def test_json_object_regex_choice_grammar_and_structural_tag_are_kept(stub, pb):
    text, finished = ask(stub, pb, pb.inference.Constraint(json_object=True), max_tokens=400)
    if finished.reason == pb.inference.STOP:
        assert isinstance(json.loads(text), dict)
    text, finished = ask(stub, pb, pb.inference.Constraint(regex=r"[A-Z]{3}-\d{2,4}"))
    assert finished.reason == pb.inference.STOP and re.fullmatch(r"[A-Z]{3}-\d{2,4}", text)
    choices = ["red", "green", "a \"quoted\" one"]
    text, finished = ask(stub, pb, pb.inference.Constraint(choice=pb.inference.Constraint.Choice(choices=choices)))
    assert finished.reason == pb.inference.STOP and text in choices
    grammar = 'root ::= term (" + " term){0,3}\nterm ::= [0-9]+ | "(" root ")"'
    text, finished = ask(stub, pb, pb.inference.Constraint(grammar=grammar), max_tokens=60)
    assert re.fullmatch(r"[0-9+() ]*", text)
    tag = {"type": "structural_tag", "format": {"type": "tag", "begin": "<n>", "end": "</n>",
                                                "content": {"type": "json_schema", "json_schema": {"type": "integer", "minimum": 1, "maximum": 9}}}}
    text, finished = ask(stub, pb, pb.inference.Constraint(structural_tag=json.dumps(tag)))
    assert finished.reason == pb.inference.STOP and re.fullmatch(r"<n>[1-9]</n>", text)


def test_every_choice_follows_on_its_own(stub, pb):
    request = pb.inference.GenerateRequest(
        text="Pick:", n=6, constraint=pb.inference.Constraint(regex="[a-z]{4}"), sampling=pb.inference.Sampling(temperature=1, seed=3))
    texts = {}
    for event in stub.Generate(request):
        if event.WhichOneof("event") == "delta":
            texts[event.delta.index] = texts.get(event.delta.index, "") + event.delta.text
        if event.WhichOneof("event") == "finished":
            assert event.finished.reason == pb.inference.STOP
    assert len(texts) == 6 and len(set(texts.values())) > 1
    assert all(re.fullmatch("[a-z]{4}", text) for text in texts.values())


def test_ignore_eos_goes_on_while_the_grammar_can(stub, pb):
    request = pb.inference.GenerateRequest(
        text="x", constraint=pb.inference.Constraint(regex="a{1,30}"), stopping=pb.inference.Stopping(ignore_eos=True, max_tokens=100),
        sampling=pb.inference.Sampling(temperature=1, seed=1))
    _, deltas, finished = generate(stub, request)
    assert finished.reason == pb.inference.STOP and "".join(d.text for d in deltas) == "a" * 30


def test_what_leaves_nothing_to_choose_ends_with_a_sentence(stub, pb):
    error = refusal(stub, pb, pb.inference.Constraint(regex="[0-9]+"), sampling=pb.inference.Sampling(allowed_token_ids=[300, 301]))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION and "allowed_token_ids" in error.details()


@pytest.mark.parametrize("field,value,word", [
    ("json_schema", "{", "JSON"), ("json_schema", "[" * 100000, "JSON"), ("json_schema", '{"not":{}}', "not is not supported"),
    ("json_schema", '{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/a"}}}', "itself"),
    ("json_schema", '{"type":"array","uniqueItems":true}', "uniqueItems"), ("regex", "(", "parenthesis"), ("regex", "(?=a)", "constraint"),
    ("regex", "x" * 200000, "limit"), ("regex", "", "empty"), ("regex", "a\0b", "zero"), ("grammar", "root = ", "constraint"),
    ("grammar", 'start ::= "a"', "constraint"), ("structural_tag", "{}", "format"), ("structural_tag", "no", "JSON"),
])
def test_what_cannot_be_kept_is_refused(stub, pb, field, value, word):
    error = refusal(stub, pb, pb.inference.Constraint(**{field: value}))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
    assert word in error.details() and "constraint" in error.details(), error.details()


def test_an_empty_constraint_and_an_empty_choice_are_refused(stub, pb):
    assert refusal(stub, pb, pb.inference.Constraint()).code() == grpc.StatusCode.INVALID_ARGUMENT
    empty = pb.inference.Constraint(choice=pb.inference.Constraint.Choice())
    assert refusal(stub, pb, empty).code() == grpc.StatusCode.INVALID_ARGUMENT


def test_calls_of_tools_need_a_parser(stub, pb):
    error = refusal(stub, pb, pb.inference.Constraint(tool_calls=pb.inference.Constraint.ToolCalls()))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION and "tool-call-parser" in error.details()


def test_a_plan_refuses_what_a_request_would(stub, pb):
    request = pb.inference.GenerateRequest(text="x", constraint=pb.inference.Constraint(json_schema='{"not":{}}'))
    with pytest.raises(grpc.RpcError) as error:
        stub.Plan(pb.inference.PlanRequest(request=request))
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    request.constraint.json_schema = '{"type":"integer"}'
    assert stub.Plan(pb.inference.PlanRequest(request=request)).fits


def test_constrained_and_free_streams_share_the_batch(stub, pb):
    free = pb.inference.GenerateRequest(text="The capital of France is", sampling=pb.inference.Sampling(temperature=0),
                                        stopping=pb.inference.Stopping(max_tokens=24, ignore_eos=True))
    alone = "".join(d.text for d in generate(stub, free)[1])
    results, errors = {}, []

    def run(i):
        try:
            if i % 2:
                results[i] = ask(stub, pb, pb.inference.Constraint(json_schema=json.dumps(PERSON)), seed=i)
            else:
                results[i] = "".join(d.text for d in generate(stub, free)[1])
        except Exception as error:  # shown by the main thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    for i, result in results.items():
        if i % 2 == 0:
            assert result == alone
        elif result[1].reason == pb.inference.STOP:
            validate(json.loads(result[0]), PERSON)
