"""One round of closed-loop load on an OpenAI-compatible server.

Each client keeps one streamed completion open. Prompts are distinct random token ids, so that no prefix cache helps; every
answer has exactly the asked number of tokens. Where tools/load.py of the larger goldens is there, its round is used, so
that figures are those of the published ones; this one measures the same without it.
"""
import argparse
import asyncio
import collections
import concurrent.futures
import importlib.util
import json
import os
import random
import time
import urllib.request

Load = collections.namedtuple("Load", "clients requests prompt decode")

FIGURES = ("output tok/s", "total tok/s", "TTFT p50 ms", "TTFT p99 ms", "ITL p50 ms", "ITL p99 ms", "errors")
VOCABULARY = (1000, 40000)  # ids that every tokenizer of the benchmarks has, none of them special
TIMEOUT_S = 900


def one_request(url, ids, decode):
    """One streamed completion: (seconds to the first token, [gaps], tokens)."""
    body = {"model": "default", "prompt": ids, "max_tokens": decode, "min_tokens": decode, "temperature": 0,
            "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}}
    start = time.perf_counter()
    stamps, tokens = [], 0
    request = urllib.request.Request(url + "/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        for line in answer:
            if line.startswith(b"data:") and b"[DONE]" not in line:
                event = json.loads(line[5:])
                tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
                if event.get("choices"):
                    stamps.append(time.perf_counter())
    return stamps[0] - start, [b - a for a, b in zip(stamps, stamps[1:])], tokens or len(stamps)


def percentile_ms(values, part):
    return sorted(values)[min(len(values) - 1, int(part * len(values)))] * 1e3 if values else float("nan")


def own_round(url, load, seed):
    rng = random.Random(seed)
    prompts = [[rng.randrange(*VOCABULARY) for _ in range(load.prompt)] for _ in range(load.requests)]
    done, errors = [], 0
    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(load.clients) as pool:
        for answer in [pool.submit(one_request, url, ids, load.decode) for ids in prompts]:
            try:
                done.append(answer.result())
            except (OSError, ValueError, IndexError):  # counted: a load test must not hide failures
                errors += 1
    wall = time.perf_counter() - start
    tokens, gaps, firsts = sum(d[2] for d in done), [g for d in done for g in d[1]], [d[0] for d in done]
    return dict(zip(FIGURES, (tokens / wall, (tokens + len(done) * load.prompt) / wall, percentile_ms(firsts, .5),
                              percentile_ms(firsts, .99), percentile_ms(gaps, .5), percentile_ms(gaps, .99), errors)))


def find_round(shared):
    """(the function that runs a round: url, load, seed -> figures, what it is)."""
    path = os.path.join(shared, "tools", "load.py")
    if not os.path.exists(path):
        return own_round, "serving_load.py"
    spec = importlib.util.spec_from_file_location("load", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def shared_round(url, load, seed):
        arguments = argparse.Namespace(**load._asdict(), model="default", timeout=TIMEOUT_S, vocab_low=VOCABULARY[0],
                                       vocab_high=VOCABULARY[1])
        return asyncio.run(module.run_round(url, arguments, seed))
    return shared_round, "tools/load.py"
