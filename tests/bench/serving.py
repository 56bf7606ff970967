#!/usr/bin/env python3
"""Serving speed against llama-server and vLLM's CPU build, all on this machine, round by round in turn (A B C, A B C, ...).

    ./dev bench                               the default model and, where it is at hand, a random model of 1B's shape
    ./dev bench --quick                       one short round of each, to see that everything runs
    ./dev bench --only 1b --rounds 5 --csv 1b.csv
    ./dev bench --isa avx2                    ours on another instruction set (fastgend --cpu-isa)
    ./dev bench --vllm /opt/peer_vllm         vLLM too, installed there by tools/peer_vllm_cpu.sh

What is measured: closed-loop loads (output tok/s, TTFT, ITL), the batch gain (tok/s of 32 clients over that of one),
prefill tok/s and its share of the machine's int8 peak (kernels_bench --probes, in the same minute), seconds from exec to
the first healthy answer with the files in memory, resident memory after the loads, processor time while idle, and what
gRPC and the gateway cost (fgbench). Prints a line a step, then markdown tables: each cell is the median of the rounds with
the least and the most; ratios are ours over the better peer, median over rounds. --csv has every round.

Ctrl-C ends all servers and prints what was measured until then.
The peers and their models: llama-server is built by tools/peer_llamacpp.sh into --peer when it is not there (10 minutes).
--work holds 1b.Q4_0.gguf for ours and llama-server, and 1b/ and smollm2/ (bf16 safetensors) for vLLM; what is missing is
made by tools/make_random_model.py and the peers' own converter when --vllm is given, else that part is left out.
"""
import argparse
import collections
import contextlib
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time

from serving_load import Load, find_round
from serving_servers import Server, wait_for_rest
from serving_table import PROCESS, ServingTable, load_name

OURS, LLAMA, VLLM = "Fastgen", "llama-server", "vLLM"

# What a model is asked to do; weights that every prompt token passes (without embedding and head).
Model = collections.namedtuple("Model", "name shape tokenizer linear_weights loads")
MODELS = (
    Model("smollm2", "smollm2-135m", "smollm2", 30 * (960 * 576 + 576 * 576 + 3 * 1536 * 576),
          (Load(1, 3, 128, 128), Load(8, 16, 128, 64), Load(32, 64, 128, 64), Load(1, 3, 1024, 1))),
    Model("1b", "llama-3.2-1b", "llama3_1", 16 * (3072 * 2048 + 2048 * 2048 + 3 * 8192 * 2048),
          (Load(1, 2, 128, 48), Load(8, 16, 128, 32), Load(32, 64, 128, 32), Load(1, 2, 1024, 1))),
)
# The figures that the table shows of a load.
SHOWN = ("output tok/s", "TTFT p50 ms", "ITL p50 ms", "ITL p99 ms")
SHOWN_PROMPT_ONLY = ("TTFT p50 ms",)
IDLE_S = 10
INT8_INSTRUCTION = {"avx2": "vpmaddubsw 256", "avx2-vnni": "vpdpbusd 256", "avx512": "vpdpbusd 512",
                    "avx512-bf16": "vpdpbusd 512", "amx": "amx int8 fed", "generic": "sse2 pmaddwd"}


def say(text):
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


def first_line(command):
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return ((ended.stdout or ended.stderr).strip().splitlines() or ["?"])[0]
    except (OSError, subprocess.TimeoutExpired):
        return "?"


class Setup:
    """Where everything is, and the commands that start the servers."""

    def __init__(self, args):
        self.args = args
        self.cores = len(os.sched_getaffinity(0))
        self.tools = os.path.join(args.shared, "tools")
        self.llama = os.path.join(args.peer, "bin", "llama-server")
        self.vllm = args.vllm and os.path.join(args.vllm, "venv", "bin", "python")

    def find_peers(self):
        """The names of the servers that can be had; builds llama-server where its script is."""
        servers = [OURS]
        script = os.path.join(self.tools, "peer_llamacpp.sh")
        if not os.path.exists(self.llama) and os.path.exists(script):
            say(f"building llama-server into {self.args.peer} (about 10 minutes)")
            subprocess.run(["bash", script, self.args.peer], check=True, stdout=subprocess.DEVNULL)
        if os.path.exists(self.llama):
            servers.append(LLAMA)
        else:
            say(f"no llama-server in {self.args.peer}, no peer_llamacpp.sh in --shared: without it")
        if self.vllm and os.path.exists(self.vllm):
            servers.append(VLLM)
        else:
            say(f"no vLLM in {self.args.vllm}: without it" if self.vllm else "no --vllm DIR: without vLLM")
        return servers

    def gguf(self, model):
        return self.args.model if model.name == "smollm2" else os.path.join(self.args.work, model.name + ".Q4_0.gguf")

    def directory(self, model):
        return os.path.join(self.args.work, model.name)

    def prepare(self, model, servers):
        """Makes what is missing of a model's files. False: it cannot be had."""
        if VLLM in servers and not os.path.exists(os.path.join(self.directory(model), "config.json")):
            say(f"{model.name}: making a random model in {self.directory(model)}")
            os.makedirs(self.args.work, exist_ok=True)
            tokenizer = os.path.join(self.args.shared, "tokenizers", model.tokenizer)
            subprocess.run([self.vllm, os.path.join(self.tools, "make_random_model.py"), model.shape, self.directory(model),
                            "--tokenizer", tokenizer], check=True, stdout=subprocess.DEVNULL)
        gguf = self.gguf(model)
        if os.path.exists(gguf):
            return True
        converter = os.path.join(self.args.peer, "src", "vendor", "llama.cpp", "convert_hf_to_gguf.py")
        if VLLM not in servers or LLAMA not in servers or not os.path.exists(converter):
            say(f"{model.name}: no {gguf}, and no --vllm DIR whose Python could make it: left out")
            return False
        say(f"{model.name}: converting and quantising with llama.cpp's tools (minutes)")
        full = gguf.replace("Q4_0", "bf16")
        subprocess.run([self.vllm, converter, self.directory(model), "--outtype", "bf16", "--outfile", full], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        subprocess.run([os.path.join(self.args.peer, "bin", "llama-quantize"), full, gguf, "Q4_0"], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.unlink(full)
        return True

    def start(self, server, model, grpc="127.0.0.1:0"):
        if server == OURS:
            command = [os.path.join(self.args.build, "bin", "fastgend"), "--model", self.gguf(model), "--grpc-listen",
                       grpc, "--http-listen", "127.0.0.1:PORT"]
            return Server(OURS, command + (["--cpu-isa", self.args.isa] if self.args.isa else []) + self.args.flag)
        if server == LLAMA:
            return Server(LLAMA, [self.llama, "-m", self.gguf(model), "--host", "127.0.0.1", "--port", "PORT", "-np", "32",
                                  "-c", str(32 * 2048), "-t", str(self.cores), "--no-webui"])
        return Server(VLLM, ["bash", os.path.join(self.tools, "peer_vllm_cpu.sh"), self.args.vllm, "serve",
                             self.directory(model), "PORT"], timeout_s=900)

    def describe(self, servers):
        """Lines about the machine and the versions."""
        cpu = {}
        with open("/proc/cpuinfo") as file:
            for line in file:
                name, _, value = line.partition(":")
                cpu.setdefault(name.strip(), value.strip())
        flags = [f for f in cpu.get("flags", "").split() if f.startswith(("avx", "amx", "fma", "f16c"))]
        lines = [f"{cpu.get('model name', platform.processor())}, {self.cores} cores, flags: {' '.join(flags)}",
                 f"{time.strftime('%Y-%m-%d')}, {self.args.rounds} rounds in turn, load by {self.args.loader}",
                 f"{OURS}: {first_line([os.path.join(self.args.build, 'bin', 'fastgend'), '--version'])}, commit "
                 + first_line(["git", "-C", os.path.dirname(os.path.abspath(__file__)), "describe", "--always", "--dirty"])
                 + (f", --cpu-isa {self.args.isa}" if self.args.isa else "")]
        if LLAMA in servers:
            lines.append(f"{LLAMA}: {first_line([self.llama, '--version'])}, ggml {self.ggml_version()}, -np 32 -t {self.cores}")
        if VLLM in servers:
            version = "import importlib.metadata as m; print(m.version('vllm-cpu'))"
            lines.append(f"{VLLM}: {first_line([self.vllm, '-c', version])}, bf16, no prefix cache")
        return lines

    def ggml_version(self):
        names = os.listdir(os.path.dirname(self.llama))
        versions = [n.partition(".so.")[2] for n in names if n.startswith("libggml-base.so.")]
        return max(versions, key=len, default="?")


class Bench:
    def __init__(self, setup, servers):
        self.setup, self.servers, self.args = setup, servers, setup.args
        self.table = ServingTable(servers)
        self.peak_gops = None

    def probe_peak(self):
        """GOP/s of the int8 instruction that ours multiplies with, by kernels_bench; None without that program."""
        program = os.path.join(self.args.build, "bin", "kernels_bench")
        if not os.path.exists(program):
            say("no kernels_bench in --build: prefill without its share of the peak")
            return
        with tempfile.TemporaryDirectory() as folder:
            csv = os.path.join(folder, "probes.csv")
            isa = ["--isa", self.args.isa] if self.args.isa else []
            # The largest of a few: beside another program a probe reads half of the peak.
            for _ in range(3):
                subprocess.run([program, "--probes", "--csv", csv] + isa, check=True, stdout=subprocess.DEVNULL)
                with open(csv) as file:
                    rows = [line.strip().split(",") for line in file if line.startswith("probe,")]
                rates = {row[2]: float(row[11]) for row in rows}
                rate = rates.get(INT8_INSTRUCTION.get(rows[0][4]))
                if rate is not None:
                    self.peak_gops = max(rate, self.peak_gops or 0)
        say(f"int8 peak of {rows[0][4]}: {self.peak_gops} GOP/s")

    def measure_start(self, model):
        """Exec to ready, files cached: a start before the first one is thrown away. vLLM's minutes are taken once, later."""
        for server in [s for s in self.servers if s != VLLM]:
            for number in range(-1, self.args.rounds):
                with self.setup.start(server, model) as process:
                    seconds = process.wait_ready()
                if number >= 0:
                    self.table.add(model.name, PROCESS, "start to ready s", server, number, seconds)
            say(f"{model.name}: {server} ready after {seconds:.2f} s")

    def loads(self, model):
        """A model's loads, cut short where nothing is to be quoted."""
        if not self.args.quick:
            return model.loads
        return [Load(l.clients, l.clients, min(l.prompt, 64 * 8 // l.clients), min(l.decode, 8)) for l in model.loads]

    def measure_loads(self, model, running):
        for load in self.loads(model):
            name = load_name(load)
            for server, process in running.items():  # warm-up
                self.args.run_round(process.url, load._replace(requests=min(2, load.clients), decode=min(8, load.decode)), 1)
            for number in range(self.args.rounds):
                for server, process in running.items():
                    if not wait_for_rest(running.values()):
                        say("a server computes without a request: what follows is disturbed")
                    figures = self.args.run_round(process.url, load, 1000 + number)
                    self.add_round(model, name, load, server, number, figures)
                    say(f"{model.name}, {name}, round {number + 1} of {self.args.rounds}, {server}: "
                        f"{figures['output tok/s']:.1f} tok/s, TTFT {figures['TTFT p50 ms']:.0f} ms, "
                        f"ITL {figures['ITL p50 ms']:.2f} ms" + (f", {figures['errors']} ERRORS" if figures["errors"] else ""))
        if not self.args.quick:
            for server in running:
                self.add_batch_gain(model, server)

    def add_round(self, model, name, load, server, number, figures):
        add = lambda figure, value: self.table.add(model.name, name, figure, server, number, value)  # noqa: E731
        for figure in SHOWN if load.decode > 1 else SHOWN_PROMPT_ONLY:
            add(figure, figures[figure])
        if load.decode == 1:
            rate = load.prompt / figures["TTFT p50 ms"] * 1e3
            add("prefill tok/s", rate)
            if self.peak_gops and server == OURS:
                add("prefill, share of the int8 peak", 2 * model.linear_weights * rate * 1e-9 / self.peak_gops)
        if figures["errors"]:
            add("errors", figures["errors"])

    def add_batch_gain(self, model, server):
        rates = {load.clients: self.table.median(model.name, load_name(load), "output tok/s", server)
                 for load in self.loads(model) if load.decode > 1}
        if rates.get(1) and rates.get(32):
            self.table.add(model.name, "32 clients / 1 client", "batch gain", server, 0, rates[32] / rates[1])

    def measure_rest(self, model, running):
        """Memory after the loads, and processor time with nothing to do."""
        for server, process in running.items():
            resident, anonymous = process.resident_mb()
            self.table.add(model.name, PROCESS, "resident MB", server, 0, resident)
            self.table.add(model.name, PROCESS, "resident MB, not of files", server, 0, anonymous)
        say(f"{model.name}: idle for {IDLE_S} s")
        time.sleep(1)
        before = {server: process.cpu_seconds() for server, process in running.items()}
        time.sleep(IDLE_S)
        for server, process in running.items():
            self.table.add(model.name, PROCESS, f"idle, CPU ms in {IDLE_S} s", server, 0,
                           (process.cpu_seconds() - before[server]) * 1e3)

    def run_model(self, model):
        if not self.setup.prepare(model, self.servers):
            return
        self.measure_start(model)
        with contextlib.ExitStack() as stack:
            running = {}
            for server in self.servers:
                process = stack.enter_context(self.setup.start(server, model))
                if server == VLLM:
                    say(f"{model.name}: starting vLLM, which compiles for minutes")
                    self.table.add(model.name, PROCESS, "start to ready s", VLLM, 0, process.wait_ready())
                else:
                    process.wait_ready()
                running[server] = process
            self.measure_loads(model, running)
            self.measure_rest(model, running)


def front_cost(setup, model, rounds):
    """What the gateway costs over gRPC at 32 streams: fgbench's own table, as text."""
    program = os.path.join(setup.args.build, "bin", "fgbench")
    if not os.path.exists(program):
        return "gRPC against HTTP: no fgbench in --build"
    say("gRPC against HTTP at 32 streams (fgbench)")
    with tempfile.TemporaryDirectory() as folder:
        grpc = f"unix:{folder}/grpc"
        with setup.start(OURS, model, grpc=grpc) as server:
            server.wait_ready()
            ended = subprocess.run([program, "--grpc", grpc, "--http", server.url, "-c", "32", "-n", "96", "-p", "64", "-o",
                                    "64", "-r", str(rounds)], capture_output=True, text=True)
    return ("gRPC against HTTP, 32 streams, 64 + 64 (fgbench; transport_bench compares both with the "
            "bare engine):\n\n```\n" + (ended.stdout or ended.stderr).rstrip() + "\n```")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True, help="the build directory: bin/fastgend, bin/kernels_bench, bin/fgbench")
    parser.add_argument("--model", required=True, help="the default model (GGUF)")
    parser.add_argument("--shared", default="../shared", help="where tools/ and tokenizers/ are")
    parser.add_argument("--peer", default=os.path.expanduser("~/.cache/fastgen/peer"), help="llama.cpp's folder")
    parser.add_argument("--vllm", help="vLLM's folder; without it vLLM is left out")
    parser.add_argument("--work", default=os.path.expanduser("~/.cache/fastgen/bench"), help="the random models' folder")
    parser.add_argument("--only", choices=[m.name for m in MODELS], help="one model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--isa", help="ours with --cpu-isa ISA")
    parser.add_argument("--flag", action="append", default=[], help="one more argument of fastgend, as in --flag=--threads=1")
    parser.add_argument("--csv", help="write every round there")
    parser.add_argument("--quick", action="store_true", help="one round of few, short requests; nothing to quote")
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error("--rounds must be at least 1")
    if args.quick:
        args.rounds = 1
    args.run_round, args.loader = find_round(args.shared)
    return args


def print_result(setup, bench, models, tail):
    lines = setup.describe(bench.servers)
    print("\n" + "\n".join(lines))
    for model in models:
        if any(key[0] == model.name for key in bench.table.values):
            print(f"\n{model.name}:\n\n" + "\n".join(bench.table.markdown(model.name)))
    if tail:
        print("\n" + tail)
    if setup.args.csv:
        with open(setup.args.csv, "w") as file:
            bench.table.write_csv(file, lines)
        say(f"every round is in {setup.args.csv}")


def end(*unused):
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # ending takes seconds, and must not be cut short
    say("interrupted: ending the servers")
    raise KeyboardInterrupt


def main():
    args = parse_arguments()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    setup = Setup(args)
    bench = Bench(setup, setup.find_peers())
    models = [model for model in MODELS if args.only in (None, model.name)]
    code, tail = 0, ""
    try:
        bench.probe_peak()
        for model in models:
            bench.run_model(model)
        if args.only in (None, "smollm2") and not args.quick:
            tail = front_cost(setup, MODELS[0], args.rounds)
    except KeyboardInterrupt:
        code = 130
    except (RuntimeError, subprocess.CalledProcessError) as error:
        say(str(error))
        code = 1
    print_result(setup, bench, models, tail)
    if any(key[2] == "errors" for key in bench.table.values):
        code = code or 1
    sys.exit(code)


if __name__ == "__main__":
    main()
