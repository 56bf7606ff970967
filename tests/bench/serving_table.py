"""What serving.py has measured, as a markdown table and as CSV.

Figures arrive one by one: (model, load, figure, server, round, value). A row of the table is a figure of a load: each
server's median with the least and the most of its rounds, and the ratio of the first server to the better of the others,
round by round (median), beside what docs/benchmarks.md asks of it.
"""
import csv
import statistics

PROCESS = "process"  # in the place of a load: figures of a server as a whole
HIGHER_IS_BETTER = {"output tok/s", "total tok/s", "prefill tok/s", "batch gain"}
# (model, load, figure) -> the ratio to the better peer that is asked for. The first letter says which side is good.
TARGETS = {
    ("smollm2", "1 client, 128 + 128", "ITL p50 ms"): ("<=", 0.5),
    ("smollm2", "8 clients, 128 + 64", "output tok/s"): (">=", 3),
    ("smollm2", "32 clients, 128 + 64", "output tok/s"): (">=", 3),
    ("smollm2", "1 client, 1024 + 1", "TTFT p50 ms"): ("<=", 0.5),
    ("1b", "1 client, 128 + 48", "ITL p50 ms"): ("<=", 0.75),
    ("1b", "8 clients, 128 + 32", "output tok/s"): (">=", 2.5),
    ("1b", "32 clients, 128 + 32", "output tok/s"): (">=", 2.5),
}
# The same for our own figure.
ABSOLUTE_TARGETS = {
    ("smollm2", PROCESS, "start to ready s"): ("<=", 0.5),
    ("smollm2", "32 clients / 1 client", "batch gain"): (">=", 12),
    ("smollm2", PROCESS, "idle, CPU ms in 10 s"): ("<=", 10),  # 0.1 % of a core: its timers
}


def load_name(load):
    return f"{load.clients} client{'s' if load.clients > 1 else ''}, {load.prompt} + {load.decode}"


def number(value):
    if value != value:
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


class ServingTable:
    def __init__(self, servers):
        self.servers = list(servers)  # ours first
        self.values = {}  # (model, load, figure) -> {server: {round: value}}

    def add(self, model, load, figure, server, round_number, value):
        self.values.setdefault((model, load, figure), {}).setdefault(server, {})[round_number] = value

    def median(self, model, load, figure, server):
        rounds = self.values.get((model, load, figure), {}).get(server)
        return statistics.median(rounds.values()) if rounds else None

    def better_peer(self, model, load, figure):
        """The name of the peer whose median is best; None without one."""
        medians = {server: self.median(model, load, figure, server) for server in self.servers[1:]}
        medians = {server: value for server, value in medians.items() if value is not None and value == value}
        if not medians:
            return None
        choose = max if figure in HIGHER_IS_BETTER else min
        return choose(medians, key=medians.get)

    def ratio(self, model, load, figure, peer):
        """Ours over the peer's, median over the rounds that both have; of medians where rounds do not pair."""
        of = self.values.get((model, load, figure), {})
        ours, theirs = of.get(self.servers[0], {}), of.get(peer, {})
        pairs = [ours[r] / theirs[r] for r in ours if theirs.get(r)]
        if pairs:
            return statistics.median(pairs)
        if ours and theirs and statistics.median(theirs.values()):
            return statistics.median(ours.values()) / statistics.median(theirs.values())
        return None

    def cell(self, key, server):
        rounds = list(self.values[key].get(server, {}).values())
        if not rounds:
            return "-"
        median = number(statistics.median(rounds))
        return f"{median} ({number(min(rounds))}-{number(max(rounds))})" if len(rounds) > 1 else median

    def judged(self, key):
        """(the ratio to the better peer, what is asked of it or of our own figure, with the verdict)."""
        peer = self.better_peer(*key)
        ratio = self.ratio(*key, peer) if peer else None
        shown = f"{ratio:.2f}" if ratio is not None else ""
        sign, bound = TARGETS.get(key) or ABSOLUTE_TARGETS.get(key) or (None, None)
        if sign is None:
            return shown, ""
        asked = f"{sign} {bound:g}" + ("" if key in TARGETS else " (ours)")
        value = ratio if key in TARGETS else self.median(*key, self.servers[0])
        if value is None:
            return shown, asked
        met = value <= bound if sign == "<=" else value >= bound
        return shown, asked + (", met" if met else ", missed")

    def markdown(self, model):
        """The lines of one model's table."""
        peers = self.servers[1:]
        heads = ["load", "figure", *self.servers] + (["ratio to the better", "asked"] if peers else [])
        lines = ["| " + " | ".join(heads) + " |", "| " + " | ".join("---" for _ in heads) + " |"]
        last = None
        keys = [key for key in self.values if key[0] == model]
        for key in sorted(keys, key=lambda key: key[1] == PROCESS):  # stable: what is no load comes last
            cells = ["" if key[1] == last else key[1], key[2], *(self.cell(key, server) for server in self.servers)]
            lines.append("| " + " | ".join(cells + (list(self.judged(key)) if peers else [])) + " |")
            last = key[1]
        return lines

    def write_csv(self, file, comments):
        for line in comments:
            file.write(f"# {line}\n")
        writer = csv.writer(file)
        writer.writerow(["model", "load", "figure", "server", "round", "value"])
        for (model, load, figure), servers in self.values.items():
            for server, rounds in servers.items():
                for round_number, value in rounds.items():
                    writer.writerow([model, load, figure, server, round_number, f"{value:.6g}"])
