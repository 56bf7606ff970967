"""Tool calls and reasoning through the official OpenAI client: a real daemon on a model whose weights are a script.

Each token of the script's model is followed by one other, whatever came before: its hidden states are the tokens
themselves (one-hot, untouched by layers of zeros) and its head maps each one to the next. So the text is known, and all
that turns it into calls is the daemon's own.
"""
import array
import json
import os
import struct

import pytest
from openai import BadRequestError, OpenAI

from daemon import Daemon
from tiny_model import TOKENIZER, tensor_shapes

SCRIPT = ["<|go|>", "<think>", "\nThey want weather.", "\n</think>", "\n\nLooking. ", "<tool_call>",
          "\n{\"name\": \"get_weather\", ", "\"arguments\": {\"city\"", ": \"Rome\"}}\n", "</tool_call>"]
SPECIAL = {"<|go|>", "<tool_call>", "</tool_call>"}
TEMPLATE = ("{% for m in messages %}{{ m.role }}: {{ (m.content or '').split('</think>')[-1] }}{% for c in m.tool_calls or [] %}"
            "<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}\n{% endfor %}"
            "{{ tools | tojson if tools }}{% if add_generation_prompt %}<|go|>{% endif %}")
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}}}}]
QUESTION = [{"role": "user", "content": "How is Rome?"}]
EOS = 1


def write_script_model(directory):
    with open(os.path.join(TOKENIZER, "tokenizer.json"), encoding="utf-8") as source:
        tokenizer = json.load(source)
    first = max(max(tokenizer["model"]["vocab"].values()), *(t["id"] for t in tokenizer["added_tokens"])) + 1
    for i, text in enumerate(SCRIPT):
        tokenizer["added_tokens"].append({"id": first + i, "content": text, "special": text in SPECIAL, "lstrip": False,
                                          "rstrip": False, "single_word": False, "normalized": False})
    size = first + len(SCRIPT)
    hidden = (size + 63) // 64 * 64
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": hidden,
              "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 1,
              "head_dim": hidden // 4, "max_position_embeddings": 1024, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
              "tie_word_embeddings": False, "vocab_size": size, "bos_token_id": 0, "eos_token_id": EOS,
              "torch_dtype": "float32"}
    following = {first + i: first + i + 1 for i in range(len(SCRIPT) - 1)}
    following[first + len(SCRIPT) - 1] = EOS
    header, data = {}, b""
    for name, shape in tensor_shapes(config):
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        values = array.array("f", bytes(4 * count))
        if name.endswith("norm.weight") or name.endswith("layernorm.weight"):
            values = array.array("f", [1.0] * count)
        elif name.endswith("embed_tokens.weight"):
            for token in range(size):
                values[token * hidden + token] = 1.0
        elif name == "lm_head.weight":
            for token in range(size):
                values[following.get(token, EOS) * hidden + token] = 1.0
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(data), len(data) + 4 * count]}
        data += values.tobytes()
    os.makedirs(directory)
    head = json.dumps(header).encode()
    with open(os.path.join(directory, "model.safetensors"), "wb") as out:
        out.write(struct.pack("<Q", len(head)) + head + data)
    with open(os.path.join(directory, "config.json"), "w", encoding="utf-8") as out:
        json.dump(config, out)
    with open(os.path.join(directory, "tokenizer.json"), "w", encoding="utf-8") as out:
        json.dump(tokenizer, out)
    with open(os.path.join(TOKENIZER, "tokenizer_config.json"), encoding="utf-8") as source:
        tokenizer_config = json.load(source)
    tokenizer_config.pop("chat_template", None)
    with open(os.path.join(directory, "tokenizer_config.json"), "w", encoding="utf-8") as out:
        json.dump(tokenizer_config, out)
    with open(os.path.join(directory, "chat_template.jinja"), "w", encoding="utf-8") as out:
        out.write(TEMPLATE)
    return directory


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_script_model(str(tmp_path_factory.mktemp("script") / "model"))


@pytest.fixture(scope="module")
def scripted(model):
    with Daemon("--model", model) as daemon:
        yield OpenAI(base_url=daemon.http, api_key="none")


def ask(client, **more):
    return client.chat.completions.create(model="m", messages=QUESTION, temperature=0, max_tokens=64, **more)


def test_a_call_comes_with_its_reasoning_and_content(scripted):
    answer = ask(scripted, tools=TOOLS)
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Looking."
    assert choice.message.reasoning_content == "They want weather."
    (call,) = choice.message.tool_calls
    assert (call.type, call.function.name) == ("function", "get_weather")
    assert json.loads(call.function.arguments) == {"city": "Rome"}
    assert call.id.startswith("call_")
    assert answer.usage.completion_tokens_details.reasoning_tokens == 3


def test_a_stream_adds_up_to_the_same(scripted):
    content, reasoning, arguments, names, reason = "", "", "", [], None
    for chunk in ask(scripted, tools=TOOLS, stream=True):
        choice = chunk.choices[0]
        content += choice.delta.content or ""
        reasoning += getattr(choice.delta, "reasoning_content", None) or ""
        for call in choice.delta.tool_calls or []:
            assert call.index == 0
            if call.id:
                names.append(call.function.name)
            arguments += call.function.arguments or ""
        reason = choice.finish_reason or reason
    assert (content, reasoning, names, reason) == ("Looking.", "They want weather.", ["get_weather"], "tool_calls")
    assert json.loads(arguments) == {"city": "Rome"}


def test_without_tools_calls_are_text_and_without_splitting_so_is_reasoning(scripted):
    answer = ask(scripted)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.tool_calls is None
    # The markers are special tokens, which text leaves out.
    assert answer.choices[0].message.content == "Looking. \n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\"}}\n"
    raw = ask(scripted, extra_body={"separate_reasoning": False, "skip_special_tokens": False})
    assert raw.choices[0].message.content == "".join(SCRIPT[1:])


def test_a_conversation_goes_on_after_a_call(scripted):
    call = ask(scripted, tools=TOOLS).choices[0].message
    messages = QUESTION + [call.model_dump(exclude_none=True),
                           {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "Sunny."}]
    again = scripted.chat.completions.create(model="m", messages=messages, tools=TOOLS, temperature=0, max_tokens=64)
    assert again.choices[0].message.tool_calls[0].id != call.tool_calls[0].id
    none = scripted.chat.completions.create(model="m", messages=messages, tools=TOOLS, tool_choice="none", temperature=0,
                                            max_tokens=64)
    assert none.choices[0].message.tool_calls is None


def test_a_call_that_was_cut_ends_by_length(scripted):
    answer = ask(scripted, tools=TOOLS, extra_body={"max_tokens": 7})
    assert answer.choices[0].finish_reason == "length"
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.arguments == "{\"city\""


@pytest.mark.parametrize("choice, reason", [("required", "tool_calls"),
                                            ({"type": "function", "function": {"name": "get_weather"}}, "stop")])
def test_a_forced_call_comes_after_the_reasoning_and_without_text(scripted, choice, reason):
    try:
        answer = ask(scripted, tools=TOOLS, tool_choice=choice, extra_body={"max_tokens": 200})
    except BadRequestError as refused:
        assert refused.body["param"] == "tool_choice"
        pytest.skip("this build serves no constraints")
    (only,) = answer.choices
    # The script has text where the call must come, and off its path it ends no argument by itself.
    assert only.finish_reason in (reason, "length") and not only.message.content
    assert only.message.reasoning_content == "They want weather."
    assert only.message.tool_calls[0].function.name == "get_weather"


def test_a_parser_that_is_turned_off_refuses_tools(model):
    with Daemon("--model", model, "--tool-call-parser", "none", "--reasoning-parser", "none") as daemon:
        client = OpenAI(base_url=daemon.http, api_key="none")
        with pytest.raises(BadRequestError) as refused:
            ask(client, tools=TOOLS)
        assert refused.value.body["param"] == "tools"
        assert ask(client).choices[0].message.content.startswith("<think>")
