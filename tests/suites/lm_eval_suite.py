#!/usr/bin/env python3
"""Runs lm-eval (local-completions) end to end against fgserve, on two tasks that local files define.

  ./dev suites lm-eval

Choices are scored by the prompt's logprobs (echo, max_tokens 1, prompts as lists of ids), answers are generated until a
stop string; tokens come from the server's own /tokenize, so that nothing is fetched from anywhere. Every score and every
generated text must equal what one plain request for it gives, which is what makes the run a check.
"""
import argparse
import glob
import json
import os
import shutil
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
  - {{metric: exact_match, aggregation: mean, higher_is_better: true, ignore_punctuation: true}}
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


def expected(server):
    """By plain requests: of each question its choices' scores, and its greedy line."""
    scores, lines = [], []
    for question, choices, _ in QUESTIONS:
        num_prompt = len(tokens(server, question))
        whole = [tokens(server, question + choice) for choice in choices]
        scores.append([score(server, ids[:num_prompt], ids[num_prompt:]) for ids in whole])
        status, answer = server.post("/v1/completions", {"prompt": question, "max_tokens": 8, "temperature": 0, "stop": "\n"})
        assert status == 200, answer
        lines.append(answer["choices"][0]["text"])
    return scores, lines


def samples(folder, task):
    """What the suite kept of a task, in the order of the questions."""
    (path,) = glob.glob(os.path.join(folder, f"**/samples_{task}_*.jsonl"), recursive=True)
    with open(path) as file:
        rows = [json.loads(line) for line in file]
    return sorted(rows, key=lambda row: row["doc_id"])


def checks_of(folder, scores, lines):
    """{name: whether it held}, from the suite's samples and the same questions asked by hand."""
    choice, generated = samples(folder, "fastgen_choice"), samples(folder, "fastgen_generate")
    checks = {}
    for (question, _, answer), row, want in zip(QUESTIONS, choice, scores, strict=True):
        got = [float(response[0]) for response in row["filtered_resps"]]
        checks[f"scores after {question!r}: {got}"] = all(abs(a - b) < 1e-3 for a, b in zip(got, want, strict=True))
        checks[f"accuracy of {question!r}"] = row["acc"] == (want.index(max(want)) == answer)
    for (question, _, _), row, want in zip(QUESTIONS, generated, lines, strict=True):
        checks[f"text after {question!r}: {row['filtered_resps']}"] = row["filtered_resps"] == [want]
    accuracy = sum(row["acc"] for row in choice) / len(choice)
    exact = sum(row["exact_match"] for row in generated) / len(generated)
    print(f"lm-eval: accuracy {accuracy:.3f}, exact match {exact:.3f}")
    # A model that knows nothing, or an answer that is empty, would agree with itself.
    checks["most choices are right"] = accuracy > 0.5
    checks["some text is right"] = exact > 0
    return checks


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", required=True, help="a folder for the tasks and results, emptied first")
    options = parser.parse_args()
    shutil.rmtree(options.work, ignore_errors=True)
    os.makedirs(options.work)
    write_tasks(options.work)
    from daemon import Daemon
    with Daemon(name="fgserve") as server:
        scores, lines = expected(server)
        ended = subprocess.run(
            [sys.executable, "-m", "lm_eval", "run", "--model", "local-completions", "--tasks",
             "fastgen_choice,fastgen_generate", "--include_path", options.work,
             "--output_path", os.path.join(options.work, "results.json"), "--log_samples",
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
    checks = {**checks_of(options.work, scores, lines), "the server goes on": alive}
    for name in [name for name, held in checks.items() if not held]:
        print(f"FAILED  {name}")
    print(f"{sum(checks.values())} passed, {len(checks) - sum(checks.values())} failed, 0 skipped")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
