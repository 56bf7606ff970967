"""fgbench against real daemons: what it counts, and what it says when a server is not there or goes away."""
import http.server
import json
import os
import pty
import signal
import subprocess
import threading
import time

import pytest

from daemon import Daemon, free_port, program, run


def bench(*args, timeout=120):
    """Runs fgbench with its JSON on stdout; (CompletedProcess, figures)."""
    ended = run("fgbench", "--json", "-", *map(str, args), timeout=timeout)
    return ended, json.loads(ended.stdout) if ended.stdout else None


def check_sums(target, requests, output_tokens):
    assert target["requests"] == requests and target["errors"] == 0 and not target["error_messages"]
    assert target["output_tokens"] == requests * output_tokens
    for key in ("requests", "errors", "prompt_tokens", "output_tokens", "seconds", "client_cpu_seconds"):
        assert target[key] == pytest.approx(sum(r[key] for r in target["rounds"])), key
    assert target["output_tokens_per_s"] == pytest.approx(target["output_tokens"] / target["seconds"])
    assert target["total_tokens_per_s"] == pytest.approx(
        (target["output_tokens"] + target["prompt_tokens"]) / target["seconds"])
    for name in ("ttft_ms", "itl_ms", "e2e_ms"):
        figures = target[name]
        assert 0 < figures["p50"] <= figures["p90"] <= figures["p99"] <= figures["max"], name
        assert 0 < figures["mean"] <= figures["max"], name
    assert target["ttft_ms"]["count"] == target["e2e_ms"]["count"] == requests
    assert 0 < target["itl_ms"]["count"] <= requests * (output_tokens - 1)
    assert target["ttft_ms"]["p50"] < target["e2e_ms"]["p50"]


def test_both_targets_are_measured_and_every_token_is_counted(daemon):
    ended, figures = bench("--grpc", daemon.grpc, "--http", daemon.http, "-c", 4, "-n", 12, "-r", 2, "-w", 4, "-p", 40,
                           "-o", 16)
    assert ended.returncode == 0, ended.stderr
    assert figures["options"]["streams"] == 4 and not figures["interrupted"]
    kinds = [target["kind"] for target in figures["targets"]]
    assert kinds == ["grpc", "http"]
    for target in figures["targets"]:
        assert target["model"] == "SmolLM2-135M-Instruct.Q4_1" and len(target["rounds"]) == 2
        check_sums(target, 24, 16)
        assert 40 <= target["prompt_tokens"] / 24 <= 44  # a word a token, or nearly
    assert figures["targets"][0]["output_ratio_to_first"] == 1
    assert 0.2 < figures["targets"][1]["output_ratio_to_first"] < 5


def cached_share(daemon, *args):
    """Of the prompt tokens that a run looks up in the prefix cache, how many it finds."""
    def read():
        text = daemon.get("/metrics")[2].decode()
        return [next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"fastgen:prefix_cache_{name}_total"))
                for name in ("queries", "hits")]
    before = read()
    ended, _ = bench("--grpc", daemon.grpc, "-c", 2, "-n", 8, "-r", 1, "-w", 2, "-o", 2, *args)
    assert ended.returncode == 0, ended.stderr
    queries, hits = (after - was for after, was in zip(read(), before))
    return hits / queries


def test_prompts_share_no_prefix_unless_asked_to():
    with Daemon() as daemon:
        assert cached_share(daemon, "-p", 200) == 0
        assert cached_share(daemon, "-p", 16, "--shared-prefix", 200, "--seed", 5) > 0.4


def test_a_round_of_seconds_ends(daemon):
    ended, figures = bench("--http", daemon.http, "-c", 2, "-s", 0.5, "-r", 2, "-p", 8, "-o", 4)
    assert ended.returncode == 0, ended.stderr
    target = figures["targets"][0]
    check_sums(target, target["requests"], 4)
    assert target["requests"] >= 4


def test_prompts_of_a_file_and_the_table(daemon, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("The capital of France is\nOnce upon a time\n")
    out = tmp_path / "figures.json"
    ended = run("fgbench", "--grpc", daemon.grpc, "-c", "1", "-n", "4", "-r", "1", "-w", "0", "-o", "8", "--prompt-file",
                str(prompts), "--json", str(out))
    assert ended.returncode == 0, ended.stderr
    for words in ("[1] grpc " + daemon.grpc, "output tokens/s", "TTFT ms p99", "ITL ms mean", "E2E ms max", "CPU of fgbench"):
        assert words in ended.stdout
    assert ended.stderr == ""  # no bar where there is no terminal
    check_sums(json.loads(out.read_text())["targets"][0], 4, 8)


def test_help_teaches():
    ended = run("fgbench", "--help")
    assert ended.returncode == 0
    for words in ("fgbench --grpc 127.0.0.1:5679", "TTFT", "--shared-prefix", "Ctrl-C"):
        assert words in ended.stdout


@pytest.mark.parametrize("target", [("--grpc", "127.0.0.1:{port}"), ("--http", "http://127.0.0.1:{port}")])
def test_nobody_listening_is_one_line_and_exit_1(target):
    flag, address = target[0], target[1].format(port=free_port())
    ended = run("fgbench", flag, address)
    assert ended.returncode == 1 and ended.stdout == ""
    lines = ended.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("fgbench: ") and address in lines[0], ended.stderr


@pytest.mark.parametrize("args, words", [
    ([], "--grpc"),
    (["--grpc", "x:1", "-c", "0"], "streams"),
    (["--grpc", "x:1", "-n", "4", "-s", "1"], "excludes"),
    (["--grpc", "x:1", "--prompt-file", "/nonexistent"], "/nonexistent"),
    (["--grpc", "x:1", "--api-key-file", "/nonexistent"], "/nonexistent"),
    (["--what"], "what"),
])
def test_what_cannot_be_is_refused_at_once(args, words):
    ended = run("fgbench", *args)
    assert ended.returncode == 1 and words in ended.stderr, ended.stderr


@pytest.mark.parametrize("kind", ["grpc", "http"])
def test_a_server_that_dies_ends_the_run_with_what_was_measured(kind):
    with Daemon() as daemon:
        process = subprocess.Popen([program("fgbench"), "--" + kind, getattr(daemon, kind), "-c", "2", "-n", "100000", "-p",
                                    "8", "-o", "8", "--json", "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            text = daemon.get("/metrics")[2].decode()
            done = next(float(line.split()[1]) for line in text.splitlines() if 'finished_reason="length"' in line)
            if done >= 10:
                break
        daemon.process.kill()
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "in a row" in err.strip().splitlines()[-1], err
    target = json.loads(out)["targets"][0]
    assert target["gave_up"] and target["errors"] >= 4 and target["requests"] > 0
    assert sum(target["error_messages"].values()) == target["errors"]
    assert target["output_tokens"] == 8 * target["requests"]


def test_ctrl_c_prints_what_was_measured_and_draws_a_bar_on_a_terminal(daemon):
    parent, child = pty.openpty()
    process = subprocess.Popen([program("fgbench"), "--grpc", daemon.grpc, "-c", "2", "-s", "3600", "-p", "8", "-o", "8", "--json",
                                "-"], stdout=subprocess.PIPE, stderr=child, text=True)
    os.close(child)
    bar = b""
    while bar.count(b"round 1/3 grpc [") < 5:
        bar += os.read(parent, 4096)
    process.send_signal(signal.SIGINT)
    drain = threading.Thread(target=lambda: swallow(parent))
    drain.start()
    out, _ = process.communicate(timeout=30)
    drain.join()
    os.close(parent)
    assert process.returncode == 130
    figures = json.loads(out)
    target = figures["targets"][0]
    assert figures["interrupted"] and target["requests"] > 0 and target["errors"] == 0
    assert target["output_tokens"] == 8 * target["requests"]


def swallow(terminal):
    try:
        while os.read(terminal, 4096):
            pass
    except OSError:  # the other end is closed
        pass


class OddServer(http.server.BaseHTTPRequestHandler):
    """Answers each completion with the next of `answers`: (status, body)."""
    answers = []
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.reply(200, b'{"data":[{"id":"odd"}]}')

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.reply(*(self.answers.pop(0) if self.answers else (429, b'{"error":{"message":"no more"}}')))

    def reply(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def test_odd_answers_are_counted_and_named():
    event = b'data: {"choices":[{"text":"a"}]}\n\n'
    OddServer.answers = [
        (200, event * 3 + b"data: [DONE]\n\n"),                      # no usage: events count
        (200, event * 3),                                           # cut off
        (200, b'data: {"error":{"message":"broken\\nmodel"}}\n\ndata: [DONE]\n\n'),
        (200, b"data: nonsense\n\ndata: [DONE]\n\n"),
        (503, b'{"error":{"message":"try later"}}'),
        (500, b"\xff\xfe<html>"),
    ]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), OddServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/v1/"
        ended, figures = bench("--http", url, "-c", 4, "-n", 6, "-r", 1, "-w", 0)
        server.shutdown()
    assert ended.returncode == 0, ended.stderr
    target = figures["targets"][0]
    assert target["model"] == "odd"
    assert target["requests"] == 1 and target["output_tokens"] == 3 and target["errors"] == 5
    messages = "\n".join(target["error_messages"])
    for words in ("without [DONE]", "broken?model", "not a JSON object", "HTTP 503: try later", "HTTP 500: ??<html>"):
        assert words in messages, messages
