"""Start, stop, and everything that can be wrong at start."""
import json
import os
import signal
import socket
import struct
import subprocess
import threading
import time

import grpc
import pytest

import tiny_model
from daemon import Daemon, default_model, free_port, program, refused, run


def stream_lines(daemon, tokens, lines, headers=None):
    """Reads one streamed completion to its end, appending its lines."""
    body = json.dumps({"prompt": "Hello", "max_tokens": tokens, "ignore_eos": True, "stream": True}).encode()
    with socket.create_connection(("127.0.0.1", daemon.http_port)) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
                           b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body)
        with connection.makefile("rb") as reader:
            for line in reader:
                lines.append(line)


def start_stream(daemon, tokens):
    lines = []
    thread = threading.Thread(target=stream_lines, args=(daemon, tokens, lines))
    thread.start()
    deadline = time.monotonic() + 20
    while not any(line.startswith(b"data:") for line in lines):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return thread, lines


def test_sigterm_lets_streams_finish_and_refuses_new_requests(pb):
    with Daemon() as daemon:
        thread, lines = start_stream(daemon, 1500)
        with grpc.insecure_channel(daemon.grpc) as channel:
            stub = pb.inference_grpc.InferenceStub(channel)
            stub.GetModelInfo(pb.inference.GetModelInfoRequest())
            daemon.signal(signal.SIGTERM)
            daemon.wait_line("draining")
            with pytest.raises(grpc.RpcError) as refused:
                list(stub.Generate(pb.inference.GenerateRequest(text="new")))
            assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        thread.join(60)
        assert any(b"[DONE]" in line for line in lines)
        assert [line for line in lines if b'{"error"' in line] == []
        assert daemon.wait() == 0, daemon.log


def test_a_second_sigterm_stops_at_once_with_exit_code_1():
    with Daemon() as daemon:
        thread, lines = start_stream(daemon, 4000)
        daemon.signal(signal.SIGTERM)
        time.sleep(0.3)
        assert daemon.alive()
        daemon.signal(signal.SIGTERM)
        assert daemon.wait(10) == 1
        thread.join(10)
        assert not thread.is_alive()


def test_sigterm_when_idle_and_while_loading_ends_quickly():
    with Daemon() as daemon:
        daemon.signal(signal.SIGTERM)
        assert daemon.wait(10) == 0
    with Daemon(wait=False) as daemon:
        daemon.wait_line("loading")
        daemon.signal(signal.SIGTERM)
        code = daemon.wait(20)
        assert code == (0 if "ready" in daemon.log else 1)  # before it is ready nothing was served: not a drain


def test_options_and_memory_plan_are_printed():
    with Daemon("--max-model-len", "1024", "--max-num-seqs", "8") as daemon:
        assert "max-model-len" in daemon.log and "1024" in daemon.log
        for word in ("weights", "KV", "blocks", "workspace", "curl", "fgchat"):
            assert word in daemon.log, daemon.log
        assert daemon.stop() == 0


def test_the_printed_lines_work_as_pasted():
    with Daemon("--max-model-len", "256") as daemon:
        curl, fgchat = [line.strip() for line in daemon.lines if line.startswith("  ")][-2:]
        answer = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, timeout=60)
        assert json.loads(answer.stdout)["choices"][0]["message"]["content"], answer
        chat = subprocess.run(["bash", "-c", fgchat], input="/q\n", capture_output=True, text=True, timeout=60)
        assert chat.returncode == 0 and "1> " in chat.stdout, chat


def test_idle_daemon_uses_no_cpu():
    with Daemon() as daemon:
        daemon.post("/v1/completions", {"prompt": "a", "max_tokens": 2})
        time.sleep(1)
        ticks = lambda: sum(int(x) for x in open(f"/proc/{daemon.process.pid}/stat").read().rsplit(")", 1)[1].split()[11:13])
        before = ticks()
        time.sleep(2)
        assert ticks() - before <= 4  # of 200


def test_a_config_file_sets_options_and_flags_win(tmp_path):
    config = tmp_path / "fastgen.toml"
    config.write_text('max-model-len = 512\nmax-num-seqs = 4\n')
    with Daemon("--config", str(config), "--max-num-seqs", "6") as daemon:
        status, answer = daemon.post("/v1/completions", {"prompt": "word " * 600, "max_tokens": 1})
        assert status == 400 and "512" in answer["error"]["message"]
        assert daemon.stop() == 0


def test_usage_mistakes_name_the_flag():
    refused("--no-such-flag", words=("no-such-flag",))
    refused("--max-num-seqs", "zero", words=("max-num-seqs", "zero"))
    refused("--max-num-seqs", "0", words=("max-num-seqs", "0"))
    refused("--model", "/no/such/model", words=("/no/such/model",))
    refused("--chat-template", "/no/such/file", words=("/no/such/file",))
    refused("--cpu-isa", "sse9", words=("sse9",))
    refused("--device", "cuda", words=("cuda",))
    refused("--config", "/no/such.toml", words=("/no/such.toml",))
    ended = run("fastgend", "--help")
    assert ended.returncode == 0 and "--max-num-batched-tokens" in ended.stdout


def test_unknown_config_keys_are_refused(tmp_path):
    config = tmp_path / "c.toml"
    config.write_text("no-such-option = 1\n")
    refused("--config", str(config), words=("no-such-option",))


def test_a_taken_port_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused("--grpc-listen", f"127.0.0.1:{port}", words=(port,))
        refused("--http-listen", f"127.0.0.1:{port}", words=(port,))
    refused("--grpc-listen", "not an address", words=("not an address",))


def test_a_hugging_face_directory_is_served(tmp_path):
    model = tmp_path / "tiny-llama"
    tiny_model.write(model)
    with Daemon("--model", str(model)) as daemon:
        assert "tiny-llama" in daemon.get("/v1/models")[2].decode()
        status, answer = daemon.post("/v1/completions", {"prompt": "hello", "max_tokens": 9, "ignore_eos": True, "temperature": 0})
        assert status == 200 and answer["usage"]["completion_tokens"] == 9
        assert daemon.post("/v1/completions", {"prompt": "hello " * 300, "max_tokens": 1})[0] == 400
        assert daemon.stop() == 0


def test_the_gateway_alone_serves_a_remote_daemon():
    port = free_port()
    with Daemon() as daemon:
        gateway = subprocess.Popen([program("fastgen-gateway"), "--listen", f"127.0.0.1:{port}", "--connect", daemon.grpc],
                                   stderr=subprocess.DEVNULL)
        try:
            daemon.http = f"http://127.0.0.1:{port}"
            daemon.wait_ready()
            status, answer = daemon.post("/v1/completions", {"prompt": "The capital of France is", "max_tokens": 4, "temperature": 0})
            assert status == 200 and answer["choices"][0]["text"]
            daemon.stop()
            assert daemon.get("/health")[0] == 503
            assert daemon.post("/v1/completions", {"prompt": "x"})[0] == 503
            gateway.send_signal(signal.SIGTERM)
            assert gateway.wait(10) == 0
        finally:
            gateway.kill()
            gateway.wait()


def test_fgserve_takes_one_argument():
    with Daemon(default_model(), name="fgserve") as daemon:
        assert daemon.post("/v1/completions", {"prompt": "a", "max_tokens": 2})[0] == 200
        assert daemon.stop() == 0
