#!/usr/bin/env python3
"""Runs lm-eval (local-completions) end to end against fgserve, on two tasks that local files define.

  ./dev suites lm-eval

Choices are scored by the prompt's logprobs (echo, max_tokens 1, prompts as lists of ids), answers are generated until a
stop string; tokens come from the server's own /tokenize, so that nothing is fetched from anywhere. The figures must
equal those that the same questions give over gRPC's prompt logprobs, which is what makes the run a check.
"""
import argparse
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))

QUESTIONS = [
    ("The capital of France is", [" Paris", " banana", " seventeen"], 0),
    ("Two plus two equals", [" purple", " four", " Tuesday"], 1),
    ("The opposite of hot is", [" lamp", " guitar", " cold"], 2),
    ("Fish live in the", [" water", " essay", " number"], 0),
    ("The sun rises in the", [" fork", " east", " paragraph"], 1),
    ("A dog is an", [" opinion", " equation", " animal"], 2),
    ("Water freezes into", [" ice", " music", " verbs"], 0),
    ("Books are made of", [" noise", " paper", " Wednesday"], 1),
]

CHOICE_TASK = """
task: fastgen_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{data}"}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
target_delimiter: ""
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""

GENERATE_TASK = """
task: fastgen_generate
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{data}"}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{choices[answer]}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 8, temperature: 0}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""


def write_tasks(folder):
    data = os.path.join(folder, "questions.jsonl")
    with open(data, "w") as file:
        for question, choices, answer in QUESTIONS:
            file.write(json.dumps({"question": question, "choices": choices, "answer": answer}) + "\n")
    for name, text in (("choice", CHOICE_TASK), ("generate", GENERATE_TASK)):
        with open(os.path.join(folder, f"{name}.yaml"), "w") as file:
            file.write(text.format(data=data))


def tokens(server, text):
    return server.post("/tokenize", {"prompt": text, "add_special_tokens": False})[1]["tokens"]


def score(server, prompt, rest):
    """The sum of the logprobs of the ids `rest` after `prompt`."""
    status, answer = server.post("/v1/completions", {"prompt": prompt + rest, "echo": True, "max_tokens": 0, "logprobs": 1})
    assert status == 200, answer
    return sum(answer["choices"][0]["logprobs"]["token_logprobs"][len(prompt):])


def expected_accuracy(server):
    """What lm-eval must find, by one request a choice: the best choice is the one whose logprobs sum highest."""
    right = 0
    for question, choices, answer in QUESTIONS:
        whole = [tokens(server, question + choice) for choice in choices]
        num_prompt = len(tokens(server, question))
        sums = [score(server, ids[:num_prompt], ids[num_prompt:]) for ids in whole]
        right += sums.index(max(sums)) == answer
    return right / len(QUESTIONS)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", required=True, help="a folder for the tasks and results")
    options = parser.parse_args()
    os.makedirs(options.work, exist_ok=True)
    write_tasks(options.work)
    from daemon import Daemon
    with Daemon(name="fgserve") as server:
        accuracy = expected_accuracy(server)
        results = os.path.join(options.work, "results.json")
        ended = subprocess.run(
            [sys.executable, "-m", "lm_eval", "run", "--model", "local-completions", "--tasks",
             "fastgen_choice,fastgen_generate", "--include_path", options.work, "--output_path", results, "--log_samples",
             "--model_args", f"model=any,base_url={server.http}/v1/completions,num_concurrent=4,max_retries=1,"
             "tokenized_requests=True,tokenizer_backend=remote"],
            capture_output=True, text=True, timeout=900,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": os.path.join(options.work, "datasets"),
                 "TOKENIZERS_PARALLELISM": "false"})
        alive = server.alive()
    if ended.returncode != 0:
        print(ended.stdout[-3000:], ended.stderr[-6000:])
        print("0 passed, 1 failed, 0 skipped")
        return 1
    found = None
    for folder, _, names in os.walk(options.work):
        for name in names:
            if name.startswith("results") and name.endswith(".json"):
                found = json.load(open(os.path.join(folder, name)))["results"]
    choice = found["fastgen_choice"]["acc,none"]
    generated = found["fastgen_generate"]["exact_match,none"]
    print(f"lm-eval: accuracy {choice:.3f} (by one request a choice: {accuracy:.3f}), exact match {generated:.3f}")
    checks = [abs(choice - accuracy) < 1e-9, accuracy > 0.5, alive]
    print(f"{sum(checks)} passed, {len(checks) - sum(checks)} failed, 0 skipped")
    return 0 if all(checks) else 1


if __name__ == "__main__":
    sys.exit(main())
