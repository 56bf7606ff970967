"""Writes a small random Llama checkpoint in Hugging Face layout: it answers nonsense, but through the whole path."""
import array
import json
import os
import random
import shutil
import struct

TOKENIZER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "testdata", "tokenizer")
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0, "tie_word_embeddings": False, "vocab_size": 512, "bos_token_id": 0, "eos_token_id": 1,
    "torch_dtype": "float32",
}


def tensor_shapes(config):
    hidden, ffn, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    kv = hidden // heads * config["num_key_value_heads"]
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        for name, shape in (("self_attn.q_proj", (hidden, hidden)), ("self_attn.k_proj", (kv, hidden)), ("self_attn.v_proj", (kv, hidden)),
                            ("self_attn.o_proj", (hidden, hidden)), ("mlp.gate_proj", (ffn, hidden)), ("mlp.up_proj", (ffn, hidden)),
                            ("mlp.down_proj", (hidden, ffn)), ("input_layernorm", (hidden,)), ("post_attention_layernorm", (hidden,))):
            yield prefix + name + ".weight", shape
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (config["vocab_size"], hidden)


def write(directory):
    """Fills an empty directory with config.json, tokenizer files and model.safetensors."""
    os.makedirs(directory)
    rng = random.Random(1)
    header, data = {}, b""
    for name, shape in tensor_shapes(CONFIG):
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        deviation = 0.05 if len(shape) == 1 else shape[1] ** -0.5
        values = array.array("f", (rng.gauss(1.0 if len(shape) == 1 else 0.0, deviation) for _ in range(count)))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(data), len(data) + 4 * count]}
        data += values.tobytes()
    head = json.dumps(header).encode()
    with open(os.path.join(directory, "model.safetensors"), "wb") as out:
        out.write(struct.pack("<Q", len(head)) + head + data)
    with open(os.path.join(directory, "config.json"), "w") as out:
        json.dump(CONFIG, out)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(os.path.join(TOKENIZER, name), directory)
    return directory
