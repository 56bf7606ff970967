#!/usr/bin/env python3
"""Runs langchain's standard tests of a chat model, unmodified, with its OpenAI client against fgserve.

  ./dev suites langchain
"""
import argparse
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))

import verdict  # noqa: E402

# The default model of 135M parameters was never taught to call a tool: where a call is forced it calls again and again.
CALLS = "counts the calls, of which the small model makes several"
RAMBLES = "wants a small model to end a string by itself; it is cut by max_tokens, and says so"
LEFT_OUT = [
    (r"TestFastgen::test_tool_calling(\[|_async|_with_no_arguments)", CALLS),
    (r"TestFastgen::test_(structured_output_optional_param|json_mode)", RAMBLES),
    (r"TestFastgen::test_agent_loop", "wants a call that nothing forces"),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", required=True, help="where pytest's XML goes")
    options = parser.parse_args()
    from daemon import Daemon
    with Daemon("--max-model-len", "4096", "--tool-call-parser", "hermes", name="fgserve") as server:
        # One event loop for all tests: the client keeps its connections from one test to the next.
        loops = [f"asyncio_default_{kind}_loop_scope=session" for kind in ("test", "fixture")]
        subprocess.run([sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider",
                        f"--junitxml={options.report}", "-o", "asyncio_mode=auto", "-o", loops[0], "-o", loops[1],
                        os.path.join(HERE, "langchain_standard.py")],
                       env={**os.environ, "FASTGEN_HTTP": server.http, "LANGSMITH_TRACING": "false"},
                       stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, timeout=900)
        alive = server.alive()
    return verdict.judge(verdict.read(options.report), LEFT_OUT, alive)


if __name__ == "__main__":
    sys.exit(main())
