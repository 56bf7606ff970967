#!/usr/bin/env python3
"""What a constraint costs: tokens/s of streams that answer under a JSON schema against as many free ones, in turn.

    FASTGEN_BUILD_DIR=build build/venv/bin/python tests/bench/constraints.py [--streams 8] [--tokens 128] [--rounds 3]

Both kinds generate the same number of tokens: the schema is a list without an end. Needs grpcio-tools; prints one line a
figure.
"""
import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import grpc

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))

from daemon import Daemon  # noqa: E402

SCHEMA = json.dumps({"type": "array", "minItems": 1000, "items": {
    "type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "email": {"type": "string"},
                                     "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}}},
    "required": ["name", "age", "email", "tags"], "additionalProperties": False}})


def load_stubs():
    out = tempfile.mkdtemp()
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I", os.path.join(ROOT, "proto"), f"--python_out={out}",
                    f"--grpc_python_out={out}", "fastgen/v1/inference.proto"], check=True)
    sys.path.insert(0, out)
    return importlib.import_module("fastgen.v1.inference_pb2"), importlib.import_module("fastgen.v1.inference_pb2_grpc")


def run(pb, stub, options, schema):
    """Output tokens per second of all streams together."""
    counts = []

    def one(i):
        request = pb.GenerateRequest(text=f"Round {i}. A list of people, as JSON:", output=pb.Output(token_ids=True),
                                     sampling=pb.Sampling(temperature=0.8, seed=i),
                                     stopping=pb.Stopping(max_tokens=options.tokens, ignore_eos=True))
        if schema:
            request.constraint.json_schema = schema
        counts.append(sum(len(e.delta.token_ids) for e in stub.Generate(request)))

    threads = [threading.Thread(target=one, args=(i,)) for i in range(options.streams)]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.monotonic() - begin)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    pb, pb_grpc = load_stubs()
    with Daemon() as daemon, grpc.insecure_channel(daemon.grpc) as channel:
        stub = pb_grpc.InferenceStub(channel)
        begin = time.monotonic()
        request = pb.GenerateRequest(text="x", stopping=pb.Stopping(max_tokens=1))
        request.constraint.json_schema = SCHEMA
        list(stub.Generate(request))
        print(f"first request of the schema: {1000 * (time.monotonic() - begin):.0f} ms (vocabulary and compilation)")
        begin = time.monotonic()
        request.constraint.json_schema = SCHEMA.replace("email", "mail")
        list(stub.Generate(request))
        print(f"first request of another:    {1000 * (time.monotonic() - begin):.0f} ms (compilation)")
        begin = time.monotonic()
        list(stub.Generate(request))
        print(f"the same again:              {1000 * (time.monotonic() - begin):.0f} ms")
        figures = {"free": [], "constrained": []}
        for _ in range(options.rounds):
            figures["free"].append(run(pb, stub, options, None))
            figures["constrained"].append(run(pb, stub, options, SCHEMA))
        for kind, values in figures.items():
            print(f"{kind:12} {statistics.median(values):7.1f} tok/s  ({', '.join(f'{v:.1f}' for v in values)})")
        print(f"ratio        {statistics.median(figures['constrained']) / statistics.median(figures['free']):7.2f}")


if __name__ == "__main__":
    main()
