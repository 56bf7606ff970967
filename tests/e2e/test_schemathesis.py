"""Schemathesis reads /openapi.json and sends what it makes of it: no 5xx, no answer that the document does not describe,
no request that the document forbids and the server takes. The daemon lives on.

FASTGEN_SCHEMATHESIS_EXAMPLES: the random requests of each route, beside the thousands that cover the schemas (5).
"""
import os
import subprocess
import sys

import pytest

import tiny_model
from daemon import Daemon

HERE = os.path.dirname(os.path.abspath(__file__))
CHECKS = ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
          "response_schema_conformance", "negative_data_rejection", "missing_required_header", "unsupported_method",
          "allow_header_conformance", "ignored_auth"]


@pytest.mark.timeout(3600)
def test_schemathesis_finds_nothing(tmp_path):
    examples = os.environ.get("FASTGEN_SCHEMATHESIS_EXAMPLES", "5")
    model = tiny_model.write(str(tmp_path / "tiny"))
    with Daemon("--model", model, name="fgserve") as server:
        ended = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", "--config-file", os.path.join(HERE, "schemathesis.toml"), "run",
             server.http + "/v1/openapi.json", "--phases", "examples,coverage,fuzzing", "--checks", ",".join(CHECKS),
             "--max-examples", examples, "--generation-deterministic", "--continue-on-failure",
             "--request-timeout", "60", "--no-color"],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=3600)
        print(ended.stdout[-3000:])
        assert ended.returncode == 0, ended.stdout[-20000:]
        assert server.alive() and server.get("/health")[0] == 200
        assert server.post("/v1/completions", {"prompt": "a", "max_tokens": 1})[0] == 200
        assert server.stop() == 0, server.log
