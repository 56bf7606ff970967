"""Models by their hub id: fetched, shared with Python's huggingface_hub, served without network."""
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import tiny_model
from daemon import Daemon, program, run
from fake_hub import COMMIT, FakeHub

PROMPT = {"prompt": "a b c", "max_tokens": 4, "temperature": 0}
NEEDED = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = tiny_model.write(str(tmp_path_factory.mktemp("models") / "tiny"))
    with open(os.path.join(directory, "README.md"), "w") as readme:
        readme.write("Not needed to serve it.")
    return directory


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and an environment in which no other hub is known."""
    for name in ("HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    return tmp_path / "hub" / "models--org--tiny"


def python_hub(code):
    """What `code` prints in a Python that reads the environment anew, as huggingface_hub does at its import."""
    ended = subprocess.run([sys.executable, "-c", "from huggingface_hub import *\n" + code], capture_output=True, text=True,
                           timeout=60, env={**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1"})
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def answer_of(*args):
    with Daemon(*args) as daemon:
        status, answer = daemon.post("/v1/completions", PROMPT)
        assert status == 200, answer
        served = daemon.get("/v1/models")[2].decode()
        assert args[1].split("@")[0] in served or os.path.basename(args[1]) in served, served
        assert daemon.stop() == 0
        return answer["choices"][0]["text"], daemon.log


def test_a_model_is_fetched_once_and_then_served_offline(model, cache, monkeypatch):
    expected, _ = answer_of("--model", model)
    with FakeHub(model) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        fetched, log = answer_of("--model", "org/tiny")
        assert "downloading 100 %" in log and "loading 100 %" in log, log
        assert fetched == expected
        assert "GET /org/tiny/resolve/" + COMMIT + "/README.md" not in hub.requests
        num_requests = len(hub.requests)
        again, log = answer_of("--model", "org/tiny@main")
        assert again == expected and len(hub.requests) == num_requests + 1 and "downloading" not in log
    unreachable, log = answer_of("--model", "org/tiny")
    assert unreachable == expected and "using the copy in the cache" in log
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    offline, log = answer_of("--model", "org/tiny")
    assert offline == expected and "HF_HUB_OFFLINE" in log


def test_huggingface_hub_finds_what_was_fetched(model, cache, monkeypatch):
    with FakeHub(model) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        answer_of("--model", "org/tiny")
    folder = python_hub("print(snapshot_download('org/tiny', local_files_only=True))")
    assert folder == str(cache / "snapshots" / COMMIT)
    assert set(os.listdir(folder)) == NEEDED
    weights = python_hub("print(hf_hub_download('org/tiny', 'model.safetensors', local_files_only=True))")
    with open(weights, "rb") as fetched, open(os.path.join(model, "model.safetensors"), "rb") as original:
        assert fetched.read() == original.read()
    found = json.loads(python_hub(
        "import json\nrepos = list(scan_cache_dir().repos)\n"
        "print(json.dumps([[r.repo_id, [sorted(v.refs) for v in r.revisions]] for r in repos]))"))
    assert found == [["org/tiny", [["main"]]]]
    with FakeHub(model) as hub:  # online it fetches what we did not need, and nothing else
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        python_hub("print(snapshot_download('org/tiny'))")
        assert [r for r in hub.requests if r.startswith("GET /org/")] == [f"GET /org/tiny/resolve/{COMMIT}/README.md"]


def test_what_huggingface_hub_fetched_is_served_offline(model, cache, monkeypatch):
    with FakeHub(model) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        python_hub("print(snapshot_download('org/tiny'))")
        num_fetched = sum(r.startswith("GET /org/") for r in hub.requests)
        answer_of("--model", "org/tiny")
        assert sum(r.startswith("GET /org/") for r in hub.requests) == num_fetched
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    answer_of("--model", "org/tiny")


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_download_and_the_next_start_goes_on(model, cache, monkeypatch, stop):
    with FakeHub(model, hold="model.safetensors") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        daemon = Daemon("--model", "org/tiny", wait=False)
        half = len(hub.files["model.safetensors"]) // 2
        part = cache / "blobs" / (hub.etag("model.safetensors") + ".incomplete")
        deadline = time.monotonic() + 30
        while not (part.exists() and part.stat().st_size == half):
            assert time.monotonic() < deadline, daemon.log
            time.sleep(0.01)
        daemon.signal(stop)
        assert daemon.wait(10) == 1, daemon.log
        hub.hold = None
        answer_of("--model", "org/tiny")
        assert not part.exists()


def test_a_gated_model_says_what_to_do_and_the_token_opens_it(model, cache, monkeypatch):
    with FakeHub(model, token="hf_secret") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        ended = run("fgchat", "org/tiny")
        assert ended.returncode == 1
        assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr
        assert "accept the licence at " + hub.endpoint + "/org/tiny and set HF_TOKEN" in ended.stderr
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        _, log = answer_of("--model", "org/tiny")
        assert "hf_secret" not in log


def test_fgchat_fetches_too_and_an_absent_model_is_one_line(model, cache, monkeypatch):
    with FakeHub(model) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        ended = run("fgchat", "org/tiny", stdin="/q\n")
        assert ended.returncode == 0, ended.stderr
        assert "downloading 100 %" in ended.stderr
        ended = run("fgchat", "org/absent")
        assert ended.returncode == 1 and "org/absent: no such model" in ended.stderr
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ended = subprocess.run([program("fgchat"), "org/absent"], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and len(ended.stderr.strip().splitlines()) == 1 and "HF_HUB_OFFLINE" in ended.stderr
