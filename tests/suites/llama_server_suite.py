#!/usr/bin/env python3
"""Runs llama-server's own tests, unmodified, against fgserve: the proof that its clients find what they look for.

  ./dev suites llama       fetches the tests (they are part of llama-cpp-python's source package) and runs this

The tests take a server that somebody else started (DEBUG_EXTERNAL=1, PORT). What asks for llama.cpp's own routes,
start flags or the words that its tiny model says is left out, each with its reason below; everything else must pass.
A test that is listed here and passes is reported, so that the list stays true. Exit code 1 when a test failed.
"""
import argparse
import os
import re
import subprocess
import sys
import xml.etree.ElementTree

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))

FILES = ["test_basic", "test_chat_completion", "test_completion", "test_tokenize", "test_compat_oai_responses",
         "test_compat_anthropic", "test_ignore_eos"]

# What is not started at all, by file.
LEFT_OUT_FILES = {
    "test_compat_gcp, test_infill, test_lora, test_slot_save, test_proxy, test_mcp_servers, test_tools_builtin":
        "llama.cpp's own routes",
    "test_embedding, test_rerank, test_vision_api": "other kinds of models",
    "test_router, test_sleep, test_stream": "its router of several models and their loading",
    "test_ctx_shift, test_kv_keep_only_active, test_speculative": "its start flags and caches",
    "test_metrics": "its metric names; ours are vLLM's",
    "test_template, test_tool_call": "a template or model given by flag to a server of their own",
    "test_security": "a key and origins given by flag to a server of their own (tests/e2e/test_keys.py)",
}

NATIVE = "POST /completion, /props and /slots are llama.cpp's own"
MODEL = "asks for the words, counts or names of its own tiny model"
FLAG = "needs a start flag of llama-server"
# By regular expression on "file::test".
LEFT_OUT = [
    (r"test_basic::test_server_(props|slots)$", NATIVE),
    (r"test_basic::test_(load_split_model|no_ui)", FLAG),
    (r"test_basic::test_server_(multiple_addresses|models|model_aliases_and_tags)", FLAG),
    (r"test_chat_completion::test_chat_completion(\[|_stream\[|_with_openai_library|_cached_tokens)", MODEL),
    (r"test_chat_completion::test_(chat_template|apply_chat_template|verbose_debug)", FLAG),
    (r"test_chat_completion::test_context_size_exceeded",
     "its error type and a context of its own; ours is OpenAI's invalid_request_error, context_length_exceeded"),
    (r"test_chat_completion::test_(return_progress|chat_completion_with_timings_per_token)",
     "extensions of its answers (prompt_progress, timings)"),
    (r"test_chat_completion::test_completion_with_response_format\[response_format1-",
     "an array of any length, which its tiny model happens to fill with this text"),
    (r"test_chat_completion::test_invalid_chat_completion_req\[messages7\]",
     "two assistant messages in a row, which this model's template takes"),
    (r"test_completion::test_completion_(stream_)?with_openai_library$", MODEL),
    (r"test_completion::test_completion_stream_with_openai_library_stops", MODEL),
    (r"test_completion::", NATIVE),
    (r"test_ignore_eos::", NATIVE),
    (r"test_tokenize::test_tokenize_with_bos", "a model whose texts begin with a bos token"),
    (r"test_compat_oai_responses::test_responses_(stream_)?with_openai_library", MODEL),
    (r"test_compat_oai_responses::test_responses_stream_with_llama_telemetry",
     "extensions of its answers (prompt_progress, timings)"),
    (r"test_compat_anthropic::.*(vision|image)", "images"),
    (r"test_compat_anthropic::test_anthropic_thinking_(history|with_reasoning_model)",
     "a template given by flag to a server of its own"),
]


def reason_of(name):
    for pattern, reason in LEFT_OUT:
        if re.match(pattern, name):
            return reason
    return None


def run(suite, port, report):
    """Runs the files; returns {name: ("passed" | "failed" | "skipped", message)}."""
    subprocess.run([sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", f"--junitxml={report}",
                    *[f"unit/{name}.py" for name in FILES]],
                   cwd=suite, env={**os.environ, "DEBUG_EXTERNAL": "1", "PORT": str(port), "PYTHONDONTWRITEBYTECODE": "1"},
                   stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, timeout=1500)
    results = {}
    for case in xml.etree.ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname').split('.')[-1]}::{case.get('name')}"
        bad = next((child for child in case if child.tag in ("failure", "error")), None)
        if bad is not None:
            results[name] = ("failed", (bad.get("message") or "").splitlines()[:1])
        else:
            results[name] = ("skipped" if case.find("skipped") is not None else "passed", [])
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", required=True, help="llama.cpp's tools/server/tests")
    parser.add_argument("--report", required=True, help="where pytest's XML goes")
    options = parser.parse_args()
    from daemon import Daemon
    with Daemon("--max-model-len", "2048", name="fgserve") as server:
        results = run(options.suite, server.http_port, options.report)
        alive = server.alive()

    passed = failed = left_out = 0
    reasons = {}
    for name, (outcome, message) in sorted(results.items()):
        reason = reason_of(name)
        if reason is not None:
            left_out += 1
            entry = reasons.setdefault(reason, [0, []])
            entry[0] += 1
            if outcome == "passed":
                entry[1].append(name)
        elif outcome == "passed":
            passed += 1
        elif outcome == "failed":
            failed += 1
            print(f"FAILED  {name}: {' '.join(message)[:200]}")
        else:
            left_out += 1
            reasons.setdefault("skipped by the suite itself", [0, []])[0] += 1
    print("left out:")
    for reason, (count, passing) in sorted(reasons.items()):
        print(f"  {count:3d}  {reason}" + (f" ({len(passing)} of them pass)" if passing else ""))
    for files, reason in LEFT_OUT_FILES.items():
        print(f"       {files}: {reason}")
    if not alive:
        failed += 1
        print("FAILED  the server ended")
    print(f"{passed} passed, {failed} failed, {left_out} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
