#!/usr/bin/env python3
"""Text quality of the default model: how far each numeric mode is from the recorded fp32 reference.

  eval.py --build BUILD --model FILE.gguf --shared DIR [--modes NAME ...] [-- FLAGS of fastgend]

For every mode a daemon is started and scores, over gRPC and by token ids, the texts of DIR/smollm2: one perplexity window
(perplexity.json) and thirty greedy answers fed back behind their prompts (greedy.jsonl). Printed: perplexity and its distance from the reference, the differences of the window's logprobs (mean,
99th percentile, largest), how often the reference's greedy token is also ours, and the largest margin of the reference at
which it is not. The last lines are what other programs reached on the same file (DIR/smollm2/README.md).
Exit code 1 when a mode misses its bound.
"""
import argparse
import importlib
import json
import math
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))

# name: (flags, largest relative distance of the perplexity)
MODES = {
    "fp32": (["--compute-dtype", "fp32"], 0.0002),
    "bf16 weights": (["--weights-dtype", "bf16"], 0.002),
    "as stored, int8 activations": ([], 0.006),
}
# Measured by others on the same file.
PEERS = [
    ("weights rounded to bf16, fp32 arithmetic", 19.275, 0.007, 0.030, 0.045, 1092, 0.009),
    ("transformers, bf16", 19.274, 0.030, 0.135, 0.284, 1069, 0.20),
    ("llama.cpp, float32 cache", 19.371, 0.050, 0.230, 0.321, 1069, 0.48),
    ("llama.cpp, float16 cache", 19.339, 0.051, 0.218, 0.411, 1069, 0.25),
]


def lines(path):
    with open(path) as file:
        return [json.loads(line) for line in file]


def stubs(folder):
    """The fastgen.v1 modules, generated from the protos in the tree."""
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I", os.path.join(ROOT, "proto"), f"--python_out={folder}",
                    f"--grpc_python_out={folder}", "fastgen/v1/inference.proto"], check=True)
    sys.path.insert(0, folder)
    return importlib.import_module("fastgen.v1.inference_pb2"), importlib.import_module("fastgen.v1.inference_pb2_grpc")


def score(pb, stub, ids):
    """(logprob, rank) of every token but the first, given those before it."""
    request = pb.GenerateRequest(token_ids=pb.TokenIds(ids=ids))
    request.stopping.max_tokens = 0
    request.output.prompt_logprobs = 0
    scores = []
    for event in stub.Generate(request):
        scores += [(entry.logprob, entry.rank) for entry in event.delta.prompt_logprobs]
    assert len(scores) == len(ids), f"{len(scores)} scores for {len(ids)} tokens"
    return scores[1:]


class Report:
    """What one mode is away from the reference."""

    def __init__(self):
        self.differences = []
        self.agreed = self.compared = 0
        self.margin_flipped = 0.0
        self.perplexity = self.reference = 0.0

    def window(self, got, golden):
        logprobs = [logprob for logprob, _ in got]
        self.perplexity = math.exp(-sum(logprobs) / len(logprobs))
        self.reference = golden["perplexity"]
        self.differences = sorted(abs(a - b) for a, b in zip(logprobs, golden["logprobs"][1:], strict=True))

    def answer(self, got, golden):
        tail = got[-len(golden["greedy_ids"]):]
        for (_, rank), margin in zip(tail, golden["margins"], strict=True):
            self.compared += 1
            if rank == 1:
                self.agreed += 1
            else:
                self.margin_flipped = max(self.margin_flipped, margin)

    @property
    def distance(self):
        return self.perplexity / self.reference - 1

    def row(self, name):
        last = len(self.differences) - 1
        return (name, f"{self.perplexity:.3f}", f"{self.distance:+.3%}",
                f"{sum(self.differences) / len(self.differences):.4f}", f"{self.differences[round(last * 0.99)]:.4f}",
                f"{self.differences[last]:.4f}", f"{self.agreed} / {self.compared}", f"{self.margin_flipped:.3f}")


def measure(pb, grpc_module, daemon, golden):
    import grpc
    report = Report()
    with grpc.insecure_channel(daemon.grpc) as channel:
        stub = grpc_module.InferenceStub(channel)
        window = lines(os.path.join(golden, "perplexity.json"))[0]
        report.window(score(pb, stub, window["ids"]), window)
        for line in lines(os.path.join(golden, "greedy.jsonl")):
            report.answer(score(pb, stub, line["prompt_ids"] + line["greedy_ids"]), line)
    return report


def print_table(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for number, row in enumerate(rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--shared", required=True)
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES), metavar="NAME",
                        help=f"some of: {', '.join(repr(name) for name in MODES)}")
    parser.add_argument("flags", nargs="*", help="after --: more flags of fastgend")
    options = parser.parse_args()
    golden = os.path.join(options.shared, "smollm2")
    if not os.path.isdir(golden):
        sys.exit(f"eval: {golden} is missing: set FASTGEN_TESTDATA to the folder with the larger goldens")
    os.environ["FASTGEN_BUILD_DIR"] = options.build
    sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
    from daemon import Daemon

    rows = [("mode", "perplexity", "distance", "mean", "99 %", "max", "greedy agreed", "margin flipped")]
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        pb, grpc_module = stubs(folder)
        for name in options.modes:
            flags, bound = MODES[name]
            print(f"eval: {name} ...", file=sys.stderr, flush=True)
            with Daemon("--model", options.model, *flags, *options.flags) as daemon:
                report = measure(pb, grpc_module, daemon, golden)
            rows.append(report.row(name))
            if abs(report.distance) > bound:
                failed.append(f"{name}: the perplexity is {report.distance:+.3%} from the reference, allowed is {bound:.2%}")
    for name, perplexity, mean, high, largest, agreed, margin in PEERS:
        rows.append((f"({name})", f"{perplexity:.3f}", f"{perplexity / 19.2779 - 1:+.3%}", f"{mean:.4f}", f"{high:.4f}",
                     f"{largest:.4f}", f"{agreed} / 1093", f"{margin:.3f}"))
    print_table(rows)
    for line in failed:
        print(f"eval: {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
