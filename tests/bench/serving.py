#!/usr/bin/env python3
"""Serving speed on the default model, against llama-server on the same file where it can be had.

  serving.py --build BUILD --model FILE.gguf [--shared DIR] [--peer DIR] [--rounds 3]

With DIR/tools/load.py and DIR/tools/peer_llamacpp.sh (the larger goldens' folder) the peer is built into --peer once (about
10 minutes) and both servers are loaded in turn, A B A B; the ratio lines are medians over pairs of rounds. Without
them our own figures are printed alone.
"""
import argparse
import concurrent.futures
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
import urllib.request

# (clients, requests a round, prompt tokens, output tokens)
LOADS = [(1, 3, 128, 128), (8, 16, 128, 64), (32, 64, 128, 64), (1, 3, 1024, 1)]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A server process on a free port, ready when /health answers 200; ended on exit."""

    def __init__(self, name, command):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = open(f"/tmp/fastgen-bench-{name}-{os.getpid()}.log", "w+")
        self.process = subprocess.Popen([part.replace("PORT", str(self.port)) for part in command], stdout=self.log,
                                        stderr=subprocess.STDOUT)
        for _ in range(600):
            try:
                if urllib.request.urlopen(self.url + "/health", timeout=1).status == 200:
                    return
            except OSError:
                pass
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        self.log.seek(0)
        sys.exit(f"{name} did not start:\n{self.log.read()[-2000:]}")

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.process.terminate()
        self.process.wait(30)
        self.log.close()
        os.unlink(self.log.name)


def one_request(url, ids, decode):
    """One streamed completion: (time to first token, [gaps], tokens)."""
    body = {"model": "m", "prompt": ids, "max_tokens": decode, "min_tokens": decode, "temperature": 0, "ignore_eos": True,
            "stream": True, "stream_options": {"include_usage": True}}
    start = time.perf_counter()
    stamps, tokens = [], 0
    with urllib.request.urlopen(urllib.request.Request(url + "/v1/completions", json.dumps(body).encode(),
                                                       {"Content-Type": "application/json"}), timeout=300) as answer:
        for line in answer:
            if line.startswith(b"data:") and b"[DONE]" not in line:
                event = json.loads(line[5:])
                tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
                if event.get("choices"):
                    stamps.append(time.perf_counter())
    return stamps[0] - start, [b - a for a, b in zip(stamps, stamps[1:])], tokens


def own_figures(url, clients, requests, prompt, decode, rounds):
    """Median figures of a closed loop of `clients`, as one line."""
    figures = []
    for r in range(rounds):
        rng = random.Random(r)
        prompts = [[rng.randrange(1000, 40000) for _ in range(prompt)] for _ in range(requests)]
        start = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(clients) as pool:
            done = list(pool.map(lambda ids: one_request(url, ids, decode), prompts))
        wall = time.perf_counter() - start
        gaps = [g for d in done for g in d[1]]
        figures.append((sum(d[2] for d in done) / wall, statistics.median(d[0] for d in done) * 1e3,
                        statistics.median(gaps) * 1e3 if gaps else float("nan")))
    rate, ttft, itl = (statistics.median(f[i] for f in figures) for i in range(3))
    return f"output tok/s {rate:.1f}  TTFT p50 ms {ttft:.1f}  ITL p50 ms {itl:.2f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--shared", default="../shared")
    parser.add_argument("--peer", default=os.path.expanduser("~/.cache/fastgen/peer"))
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    cores = len(os.sched_getaffinity(0))
    ours_command = [os.path.join(args.build, "bin", "fastgend"), "--model", args.model, "--grpc-listen", "127.0.0.1:0",
                    "--http-listen", "127.0.0.1:PORT"]
    load = os.path.join(args.shared, "tools", "load.py")
    if not os.path.exists(load):
        print("the peer is missing (no load.py and peer_llamacpp.sh in --shared): our own figures alone")
        with Server("ours", ours_command) as ours:
            for clients, requests, prompt, decode in LOADS:
                print(f"clients {clients}  prompt {prompt}  decode {decode}: "
                      + own_figures(ours.url, clients, requests, prompt, decode, args.rounds), flush=True)
        return
    peer_server = os.path.join(args.peer, "bin", "llama-server")
    if not os.path.exists(peer_server):
        print(f"building llama-server into {args.peer} (about 10 minutes)", flush=True)
        subprocess.run(["bash", os.path.join(args.shared, "tools", "peer_llamacpp.sh"), args.peer], check=True,
                       stdout=subprocess.DEVNULL)
    peer_command = [peer_server, "-m", args.model, "--host", "127.0.0.1", "--port", "PORT", "-np", "32", "-c", str(32 * 2048),
                    "-t", str(cores), "--no-webui"]
    with Server("ours", ours_command) as ours, Server("peer", peer_command) as peer:
        for clients, requests, prompt, decode in LOADS:
            subprocess.run([sys.executable, load, "--target", f"ours={ours.url}", "--target", f"llama={peer.url}", "--clients",
                            str(clients), "--requests", str(requests), "--prompt", str(prompt), "--decode", str(decode),
                            "--rounds", str(args.rounds)], check=True)


if __name__ == "__main__":
    main()
