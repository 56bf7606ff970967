"""Damaged and hostile model files: one sentence that names the file and the field, exit code 1."""
import json
import os
import struct

import pytest

import tiny_model
from daemon import Daemon, default_model, refused

DROP = object()  # as a value: the key is removed


@pytest.fixture
def model(tmp_path):
    return tiny_model.write(tmp_path / "model")


def change_json(path, **changes):
    """Sets keys of a JSON object in a file; "a.b" reaches into an object."""
    with open(path) as file:
        root = json.load(file)
    for key, value in changes.items():
        *outer, last = key.split("__")
        place = root
        for name in outer:
            place = place[name]
        if value is DROP:
            del place[last]
        else:
            place[last] = value
    with open(path, "w") as file:
        json.dump(root, file)


def deep(levels):
    return "[" * levels + "]" * levels


class Safetensors:
    """A .safetensors file taken apart."""

    def __init__(self, path):
        self.path = path
        with open(path, "rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            self.header = json.loads(file.read(size))
            self.data = file.read()

    def write(self, path=None, header_text=None, claimed=None):
        head = (header_text or json.dumps(self.header)).encode()
        with open(path or self.path, "wb") as out:
            out.write(struct.pack("<Q", len(head) if claimed is None else claimed) + head + self.data)

    def part(self, names):
        """The same file with these tensors only."""
        piece = Safetensors(self.path)
        piece.header, piece.data = {}, b""
        for name in names:
            begin, end = self.header[name]["data_offsets"]
            piece.header[name] = {**self.header[name], "data_offsets": [len(piece.data), len(piece.data) + end - begin]}
            piece.data += self.data[begin:end]
        return piece


NORM = "model.norm.weight"
GATE = "model.layers.0.mlp.gate_proj.weight"


@pytest.mark.parametrize("changes, words", [
    ({"architectures": ["MambaForCausalLM"]}, ("MambaForCausalLM", "architectures")),
    ({"architectures": DROP}, ("architectures",)),
    ({"hidden_act": "gelu"}, ("hidden_act", "gelu")),
    ({"num_hidden_layers": 3}, ("layers.2",)),
    ({"num_hidden_layers": 1}, ("layers.1",)),
    ({"num_hidden_layers": -1}, ("layers", "-1")),
    ({"num_hidden_layers": 2**40}, ("layers", str(2**40))),
    ({"hidden_size": "64"}, ("hidden_size", "64")),
    ({"hidden_size": 1e30}, ("hidden_size",)),
    ({"intermediate_size": 256}, ("mlp",)),
    ({"num_key_value_heads": 3}, ("3",)),
    ({"num_key_value_heads": 0}, ("0",)),
    ({"vocab_size": 300}, ("300",)),
    ({"head_dim": 7}, ("7",)),
    ({"rms_norm_eps": -1}, ("epsilon", "-1")),
    ({"rope_theta": 0}, ("RoPE", "0")),
    ({"rope_scaling": {"rope_type": "longrope", "factor": 2}}, ("rope", "longrope")),
    ({"rope_scaling": {"rope_type": "linear"}}, ("factor",)),
    ({"quantization_config": {"quant_method": "awq"}}, ("quantization_config", "awq")),
    ({"some_new_gate": 3}, ("some_new_gate", "3")),
    ({"eos_token_id": ["x"]}, ("eos_token_id",)),
])
def test_configurations_that_do_not_fit_are_refused_by_field(model, changes, words):
    change_json(model / "config.json", **changes)
    refused("--model", str(model), words=("model", *words))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"architectures":' + deep(100_000) + "}", '{"a":"\\ud800"}', "\xff\xfe"])
def test_a_configuration_that_is_not_json_is_refused(model, text):
    (model / "config.json").write_text(text, encoding="latin-1")
    refused("--model", str(model), words=("config.json",))


def test_generation_defaults_out_of_range_are_refused(model):
    (model / "generation_config.json").write_text('{"temperature": -3}')
    refused("--model", str(model), words=("generation_config.json", "temperature", "-3"))
    (model / "generation_config.json").write_text('{"eos_token_id": "stop"}')
    refused("--model", str(model), words=("generation_config.json", "eos_token_id", "stop"))


@pytest.mark.parametrize("tensor, field, value, words", [
    (NORM, "dtype", "F8_E4M3", ("F8_E4M3",)),
    (NORM, "dtype", 3, ("dtype",)),
    (NORM, "shape", [-64], ("-64",)),
    (NORM, "shape", [2**62], (str(2**62),)),
    (NORM, "shape", [2**31, 2**31, 2**31], ()),
    (NORM, "shape", [64, 1], ("[64, 1]",)),
    (NORM, "shape", [32], ("[32]",)),
    (NORM, "shape", [0], ("0",)),
    (NORM, "data_offsets", [0, 256], ()),
    (NORM, "data_offsets", [2**60, 2**60 + 256], ()),
    (NORM, "data_offsets", [256, 0], ()),
    (NORM, "data_offsets", [-256, 0], ()),
    (NORM, "data_offsets", DROP, ("data_offsets",)),
])
def test_a_tensor_that_does_not_fit_is_refused_by_name(model, tensor, field, value, words):
    weights = Safetensors(model / "model.safetensors")
    if value is DROP:
        del weights.header[tensor][field]
    else:
        weights.header[tensor][field] = value
    weights.write()
    last = refused("--model", str(model), words=("model.safetensors", *words))
    assert tensor in last or "overlap" in last, last


def test_tensors_that_are_missing_or_too_many_are_named(model):
    weights = Safetensors(model / "model.safetensors")
    weights.part([name for name in weights.header if name != GATE]).write(model / "model.safetensors")
    refused("--model", str(model), words=(GATE, "missing"))
    weights.header["model.layers.0.mlp.router.weight"] = weights.header.pop(GATE)
    weights.write()
    last = refused("--model", str(model))
    assert GATE in last or "router" in last, last


@pytest.mark.parametrize("keep", [0, 7, 8, 9, 200, 3000, -1])
def test_a_truncated_weight_file_is_refused(model, keep):
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    refused("--model", str(model), words=("model.safetensors",))


@pytest.mark.parametrize("claimed, header", [
    (2**62, None), (2**64 - 1, None), (0, None), (None, "{"), (None, '{"a":' + deep(50_000) + "}"), (None, "[]"),
    (None, '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'),
])
def test_a_damaged_weight_header_is_refused(model, claimed, header):
    Safetensors(model / "model.safetensors").write(claimed=claimed, header_text=header)
    refused("--model", str(model), words=("model.safetensors",))


@pytest.fixture
def shards(model):
    """The tiny model in two files with an index; returns its folder and the two names."""
    weights = Safetensors(model / "model.safetensors")
    names = sorted(weights.header)
    files = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    halves = (names[::2], names[1::2])
    for file, half in zip(files, halves):
        weights.part(half).write(model / file)
    os.unlink(model / "model.safetensors")
    placed = {name: file for file, half in zip(files, halves) for name in half}
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    return model, files


def test_shards_are_served_and_their_faults_named(shards):
    model, files = shards
    index = model / "model.safetensors.index.json"
    whole = index.read_text()
    with Daemon("--model", str(model)) as daemon:
        assert daemon.post("/v1/completions", {"prompt": "hello", "max_tokens": 2})[0] == 200
    for name, value, words in ((NORM, "gone.safetensors", ("gone.safetensors",)), (NORM, "../gone.safetensors", ("index", NORM)),
                               (NORM, 7, ("index", NORM)), ("extra.weight", files[0], (files[0], "extra.weight"))):
        changed = json.loads(whole)
        changed["weight_map"][name] = value
        index.write_text(json.dumps(changed))
        refused("--model", str(model), words=words)
    changed = json.loads(whole)
    changed["weight_map"][NORM] = files[1 - files.index(changed["weight_map"][NORM])]
    index.write_text(json.dumps(changed))
    refused("--model", str(model), words=(NORM,))
    index.write_text(whole)
    second = model / files[1]
    second.write_bytes(second.read_bytes()[:-100])
    refused("--model", str(model), words=(files[1],))
    os.unlink(second)
    refused("--model", str(model), words=(files[1],))


@pytest.mark.parametrize("changes, words", [
    ({"model": DROP}, ("model",)),
    ({"model__merges": DROP}, ("merges",)),
    ({"model__vocab": DROP}, ("vocab",)),
    ({"model__vocab": {}}, ()),
    ({"model__vocab": {"a": -1}}, ()),
    ({"model__vocab": {"a": 2**40}}, ()),
    ({"model__merges": [["zz", "qq"]]}, ("merge",)),
    ({"model__merges": ["a"]}, ("merge",)),
    ({"model__type": "WordPiece"}, ("WordPiece",)),
    ({"normalizer": {"type": "Mystery"}}, ("Mystery",)),
    ({"pre_tokenizer": {"type": "Mystery"}}, ("Mystery",)),
    ({"post_processor": {"type": "Mystery"}}, ("Mystery",)),
    ({"decoder": {"type": "Mystery"}}, ("Mystery",)),
    ({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}}, ()),
])
def test_tokenizers_that_do_not_fit_are_refused_by_field(model, changes, words):
    change_json(model / "tokenizer.json", **changes)
    refused("--model", str(model), words=("tokenizer.json", *words))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model":' + deep(100_000) + "}"])
def test_a_tokenizer_that_is_not_json_is_refused(model, text):
    (model / "tokenizer.json").write_text(text)
    refused("--model", str(model), words=("tokenizer.json",))


def test_a_directory_without_a_tokenizer_is_refused(model):
    os.unlink(model / "tokenizer.json")
    refused("--model", str(model), words=("tokenizer.json",))


def test_a_template_that_loops_for_ever_is_refused_at_the_request_alone(model):
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}"
    (model / "chat_template.jinja").write_text(loop)
    with Daemon("--model", str(model)) as daemon:
        status, answer = daemon.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1})
        assert 400 <= status < 500 and "template" in answer["error"]["message"], answer
        assert daemon.post("/v1/completions", {"prompt": "hello", "max_tokens": 1})[0] == 200
        assert daemon.stop() == 0


def test_a_template_that_cannot_be_read_names_line_and_column(model):
    (model / "chat_template.jinja").write_text("fine\n{% frobnicate %}")
    with Daemon("--model", str(model)) as daemon:
        status, answer = daemon.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1})
        assert 400 <= status < 500, answer
        assert all(word in answer["error"]["message"] for word in ("chat_template.jinja", "frobnicate", " 2:4:")), answer


@pytest.mark.parametrize("size", [0, 3, 8, 24, 1000, 100_000, 1_700_000, 50_000_000])
def test_truncated_ggufs_are_refused(tmp_path, size):
    path = tmp_path / "cut.gguf"
    with open(default_model(), "rb") as whole:
        path.write_bytes(whole.read(size))
    refused("--model", str(path), words=("cut.gguf",))


def test_corrupt_ggufs_are_refused(tmp_path):
    with open(default_model(), "rb") as whole:
        head = bytearray(whole.read(2_000_000))
    path = tmp_path / "bad.gguf"
    for offset, value in ((0, b"GGUX"), (4, struct.pack("<I", 99)), (8, struct.pack("<Q", 2**60)), (16, struct.pack("<Q", 2**60)),
                          (24, struct.pack("<Q", 2**63 + 5))):
        bad = bytearray(head)
        bad[offset:offset + len(value)] = value
        path.write_bytes(bad)
        refused("--model", str(path), words=("bad.gguf",))
