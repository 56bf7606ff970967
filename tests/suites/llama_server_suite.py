#!/usr/bin/env python3
"""Runs llama-server's own tests, unmodified, against fgserve: the proof that its clients find what they look for.

  ./dev suites llama       fetches the tests (they are part of llama-cpp-python's source package) and runs this

The tests take a server that somebody else started (DEBUG_EXTERNAL=1, PORT): two of them here, the second with the key
of test_security. What asks for llama.cpp's own routes, start flags or the words that its tiny model says is left out,
each with its reason below; everything else must pass. A test that is listed and passes is a failure too: so the list
stays true. Exit code 1 when a test failed.
"""
import argparse
import hashlib
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))

import verdict  # noqa: E402

FILES = ["test_basic", "test_chat_completion", "test_completion", "test_tokenize", "test_compat_oai_responses",
         "test_compat_anthropic", "test_ignore_eos"]
KEYED_FILES = ["test_security"]
KEY = "sk-this-is-the-secret-key"  # what test_security shows

# What is not started at all, by file.
LEFT_OUT_FILES = {
    "test_compat_gcp, test_infill, test_lora, test_slot_save, test_proxy, test_mcp_servers, test_tools_builtin":
        "llama.cpp's own routes",
    "test_embedding, test_rerank, test_vision_api": "other kinds of models",
    "test_router, test_sleep, test_stream": "its router of several models and their loading",
    "test_ctx_shift, test_kv_keep_only_active, test_speculative": "its start flags and caches",
    "test_metrics": "its metric names; ours are vLLM's",
    "test_template, test_tool_call": "a template or model given by flag to a server of their own",
}

NATIVE = "POST /completion, /props and /slots are llama.cpp's own"
UNSEEN = "expects POST /completion to fail, as it does where there is none: it would prove nothing"
MODEL = "asks for the words, counts or names of its own tiny model"
FLAG = "needs a start flag of llama-server"
EXTRAS = "extensions of its answers (prompt_progress, timings)"
# By regular expression on "file::test"; the first that matches counts.
LEFT_OUT = [
    (r"test_basic::test_server_(props|slots)$", NATIVE),
    (r"test_basic::test_(load_split_model|no_ui)", FLAG),
    (r"test_basic::test_server_(multiple_addresses|models|model_aliases_and_tags)", FLAG),
    (r"test_chat_completion::test_chat_completion(\[|_stream\[|_with_openai_library|_cached_tokens)", MODEL),
    (r"test_chat_completion::test_chat_template(?!_continue_final_message_mutual_exclusion)", FLAG),
    (r"test_chat_completion::test_(apply_chat_template|verbose_debug)", FLAG),
    (r"test_chat_completion::test_context_size_exceeded",
     "its error type and a context of its own; ours is OpenAI's invalid_request_error, context_length_exceeded"),
    (r"test_chat_completion::test_(return_progress|chat_completion_with_timings_per_token)", EXTRAS),
    (r"test_chat_completion::test_invalid_chat_completion_req\[messages7\]",
     "two assistant messages in a row, which this model's template takes"),
    (r"test_completion::test_completion_(stream_)?with_openai_library$", MODEL),
    (r"test_completion::test_completion_stream_with_openai_library_stops", MODEL),
    (r"test_completion::test_(json_prompt_mtm_error_when_not_supported|completion_unified\[256-4-n_predict_vals1)", UNSEEN),
    (r"test_completion::", NATIVE),
    (r"test_ignore_eos::", NATIVE),
    (r"test_tokenize::test_tokenize_with_bos", "a model whose texts begin with a bos token"),
    (r"test_compat_oai_responses::test_responses_with_openai_library", MODEL),
    (r"test_compat_oai_responses::test_responses_stream_with_llama_telemetry", EXTRAS),
    (r"test_compat_anthropic::.*(vision|image)", "images: one fetches a model, the others want a 500 where ours is a 400"),
    (r"test_compat_anthropic::test_anthropic_empty_messages",
     "wants an empty conversation answered; Anthropic and this server refuse it"),
    (r"test_compat_anthropic::test_anthropic_thinking_(history|with_reasoning_model)",
     "a template given by flag to a server of its own"),
    (r"test_security::test_correct_api_key", "wants the members of POST /completion in the answer of /completions"),
    (r"test_security::test_access_static_assets", "its web pages"),
    (r"test_security::test_cors_", "origins given by flag to a server of its own, and answered with 200; ours with 204"),
    (r"test_security::test_local_media_file", "images"),
]


def run(suite, files, port, report):
    """Runs the files; returns what became of each test."""
    subprocess.run([sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", f"--junitxml={report}",
                    *[f"unit/{name}.py" for name in files]],
                   cwd=suite, env={**os.environ, "DEBUG_EXTERNAL": "1", "PORT": str(port), "PYTHONDONTWRITEBYTECODE": "1"},
                   stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, timeout=1500)
    return verdict.read(report)


def run_both(suite, report, folder):
    """All files, each on the server that it needs; also whether both servers were still there at the end."""
    from daemon import Daemon
    # The default model has no form of its own for calls: the tests of tools need one to be named.
    flags = ("--max-model-len", "2048", "--tool-call-parser", "hermes")
    with Daemon(*flags, name="fgserve") as server:
        results = run(suite, FILES, server.http_port, report)
        alive = server.alive()
    keys = os.path.join(folder, "keys")
    with open(os.open(keys, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(f"suite sha256:{hashlib.sha256(KEY.encode()).hexdigest()} infer\n")
    with Daemon(*flags, "--api-keys", keys, name="fgserve") as server:
        results |= run(suite, KEYED_FILES, server.http_port, report)
        return results, alive and server.alive()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", required=True, help="llama.cpp's tools/server/tests")
    parser.add_argument("--report", required=True, help="where pytest's XML goes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results, alive = run_both(options.suite, options.report, folder)

    print("files that were not started:")
    for files, reason in LEFT_OUT_FILES.items():
        print(f"       {files}: {reason}")
    return verdict.judge(results, LEFT_OUT, alive, may_pass=(UNSEEN,))


if __name__ == "__main__":
    sys.exit(main())
