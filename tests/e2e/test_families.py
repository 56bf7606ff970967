"""Every tiny model of the shared test data through the whole daemon: greedy ids and logprobs against the recorded ones."""
import concurrent.futures
import json
import os

import grpc
import pytest

from daemon import Daemon, run

MODELS = os.path.join(os.environ.get("FASTGEN_TESTDATA") or
                      os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../shared"), "models")
FAMILIES = {
    "llama-linear": "LlamaForCausalLM", "llama-sharded": "LlamaForCausalLM", "llama-tied": "LlamaForCausalLM",
    "llama31": "LlamaForCausalLM", "ministral": "MinistralForCausalLM", "mistral": "MistralForCausalLM",
    "mistral-sliding": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen2-tied": "Qwen2ForCausalLM",
    "qwen2-yarn": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM",
}


def golden_of(name):
    path = os.path.join(MODELS, name, "golden.json")
    if not os.path.exists(path):
        pytest.skip("the larger goldens are not on this machine")
    with open(path) as file:
        return json.load(file)


def start(name, *flags):
    return Daemon("--model", os.path.join(MODELS, name), "--threads", "2", "--block-size", "16", *flags)


def call(stub, pb, ids, **output):
    """One greedy answer: (Accepted, the deltas)."""
    request = pb.inference.GenerateRequest(
        token_ids=pb.inference.TokenIds(ids=ids), sampling=pb.inference.Sampling(temperature=0),
        stopping=pb.inference.Stopping(max_tokens=32, ignore_eos=True),
        output=pb.inference.Output(token_ids=True, **output))
    events = list(stub.Generate(request))
    assert events[-1].WhichOneof("event") == "finished"
    assert events[-1].finished.reason == pb.inference.LENGTH
    return events[0].accepted, [e.delta for e in events if e.WhichOneof("event") == "delta"]


def compare(case, answer, std):
    """Token by token up to the first margin under the bound, after which a flip is legitimate; returns the steps compared."""
    _, deltas = answer
    ids = [i for d in deltas for i in d.token_ids]
    scores = [l for d in deltas for l in d.logprobs]
    assert len(ids) == len(scores) == 32
    for step, margin in enumerate(case["margins"]):
        if margin <= 2e-3 * std:
            return step
        assert ids[step] == case["greedy_ids"][step], f"{case['name']} step {step}"
        assert abs(scores[step].logprob - case["greedy_logprobs"][step]) < 5e-3, f"{case['name']} step {step}"
    return len(ids)


@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_ids_are_the_recorded_ones(name, pb):
    golden = golden_of(name)
    std, cases = golden["measured"]["logits_std"], golden["cases"]
    with start(name, "--compute-dtype", "fp32", "--max-num-batched-tokens", "96") as daemon, \
            grpc.insecure_channel(daemon.grpc) as channel:
        stub = pb.inference_grpc.InferenceStub(channel)
        info = stub.GetModelInfo(pb.inference.GetModelInfoRequest())
        assert info.architecture == FAMILIES[name] and info.vocab_size == 512
        # All at once, in chunks of the 96 tokens that a step has; then again, on what the cache kept.
        with concurrent.futures.ThreadPoolExecutor(len(cases)) as pool:
            answers = list(pool.map(lambda case: call(stub, pb, case["prompt_ids"], logprobs=0), cases))
        steps = [compare(case, answer, std) for case, answer in zip(cases, answers)]
        assert sum(steps) > 16 * len(cases)  # most of what was recorded was compared
        longest = max(cases, key=lambda case: len(case["prompt_ids"]))
        again = call(stub, pb, longest["prompt_ids"], logprobs=0)
        assert again[0].cached_tokens >= 240
        compare(longest, again, std)
        assert daemon.stop() == 0


@pytest.mark.parametrize("name", ["mistral-sliding", "qwen3"])
def test_prompt_logprobs_of_a_served_model_follow_the_reference(name, pb):
    """As models are served by default: the best token of every position whose margin is above the 16-bit bound."""
    golden = golden_of(name)
    std = golden["measured"]["logits_std"]
    with start(name) as daemon, grpc.insecure_channel(daemon.grpc) as channel:
        stub = pb.inference_grpc.InferenceStub(channel)
        for case in golden["cases"]:
            fed = case["prompt_ids"] + case["greedy_ids"]
            _, deltas = call(stub, pb, fed, prompt_logprobs=1)
            scores = [l for d in deltas for l in d.prompt_logprobs][len(case["prompt_ids"]):]
            assert len(scores) == len(case["greedy_ids"])
            for score, token, margin in zip(scores, case["greedy_ids"], case["margins"]):
                if margin > 0.15 * std:
                    assert score.rank == 1 and score.token == token
        assert daemon.stop() == 0


@pytest.mark.parametrize("field, value, words", [
    ("architectures", ["GemmaForCausalLM"], "GemmaForCausalLM"),
    ("sliding_window", 4096, "sliding_window is 4096"),
    ("mystery_field", 3, "mystery_field is 3"),
    ("hidden_size", -1, "hidden_size is -1, it must be positive"),
    ("num_hidden_layers", 3, "model.layers.2."),
])
def test_a_model_that_is_not_understood_ends_the_start_with_one_line(field, value, words, tmp_path):
    import tiny_model
    directory = tiny_model.write(str(tmp_path / "tiny"))
    path = os.path.join(directory, "config.json")
    with open(path) as file:
        config = json.load(file)
    with open(path, "w") as file:
        json.dump({**config, field: value}, file)
    ended = run("fastgend", "--model", directory, "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0")
    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert directory in last and words in last, ended.stderr
    assert "ready" not in ended.stderr
