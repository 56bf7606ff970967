"""Tests of serving.py's own logic: the table, the servers it owns, and the load that it makes by itself."""
import http.server
import io
import json
import math
import os
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from serving_load import FIGURES, Load, own_round, percentile_ms  # noqa: E402
from serving_servers import Server, group_members, wait_for_rest  # noqa: E402
from serving_table import PROCESS, ServingTable, load_name, number  # noqa: E402

MODEL, LOAD, RATE, ITL = "smollm2", "8 clients, 128 + 64", "output tok/s", "ITL p50 ms"


def table_of(figure, rounds, load=LOAD):
    """A table with one figure: rounds is {server: [values]}, ours first."""
    table = ServingTable(list(rounds))
    for server, values in rounds.items():
        for i, value in enumerate(values):
            table.add(MODEL, load, figure, server, i, value)
    return table


class TableTest(unittest.TestCase):
    def test_ratios_are_medians_over_pairs_of_rounds(self):
        # A machine that slows down fourfold: ratios of the rounds are 2, 2 and 4, that of the medians would be 1.5.
        table = table_of(RATE, {"ours": [80, 40, 20], "peer": [40, 20, 5]})
        self.assertEqual(table.ratio(MODEL, LOAD, RATE, "peer"), 2)

    def test_rounds_that_do_not_pair_are_compared_by_their_medians(self):
        table = ServingTable(["ours", "peer"])
        for i, value in enumerate((0.2, 0.4)):
            table.add(MODEL, PROCESS, "start to ready s", "ours", i + 5, value)
        table.add(MODEL, PROCESS, "start to ready s", "peer", 0, 3)
        self.assertAlmostEqual(table.ratio(MODEL, PROCESS, "start to ready s", "peer"), 0.1)

    def test_the_better_peer_has_the_higher_rate_or_the_lower_time(self):
        rounds = {"ours": [1], "a": [10], "b": [20]}
        self.assertEqual(table_of(RATE, rounds).better_peer(MODEL, LOAD, RATE), "b")
        self.assertEqual(table_of(ITL, rounds).better_peer(MODEL, LOAD, ITL), "a")

    def test_a_peer_without_a_figure_is_no_better_peer(self):
        self.assertEqual(table_of(ITL, {"ours": [1], "a": [float("nan")], "b": [5]}).better_peer(MODEL, LOAD, ITL), "b")
        self.assertIsNone(table_of(ITL, {"ours": [1]}).better_peer(MODEL, LOAD, ITL))

    def test_a_target_is_judged_against_the_better_peer(self):
        key = (MODEL, LOAD, RATE)
        self.assertEqual(table_of(RATE, {"ours": [30], "a": [5], "b": [10]}).judged(key), ("3.00", ">= 3, met"))
        self.assertEqual(table_of(RATE, {"ours": [29], "a": [5], "b": [10]}).judged(key), ("2.90", ">= 3, missed"))

    def test_an_absolute_target_is_judged_by_our_own_figure(self):
        rounds = {"ours": [0.6], "peer": [60]}
        judged = table_of("start to ready s", rounds, PROCESS).judged((MODEL, PROCESS, "start to ready s"))
        self.assertEqual(judged, ("0.01", "<= 0.5 (ours), missed"))

    def test_a_time_at_its_bound_meets_it(self):
        key = (MODEL, "1 client, 128 + 128", ITL)
        self.assertEqual(table_of(ITL, {"ours": [5], "a": [10], "b": [12]}, key[1]).judged(key), ("0.50", "<= 0.5, met"))

    def test_a_peer_of_zero_gives_no_ratio(self):
        self.assertIsNone(table_of(RATE, {"ours": [3], "peer": [0]}).ratio(MODEL, LOAD, RATE, "peer"))

    def test_markdown_has_equal_columns_medians_spread_and_the_process_last(self):
        table = ServingTable(["ours", "peer"])
        table.add(MODEL, PROCESS, "start to ready s", "ours", 0, 0.4)
        for i, value in enumerate((10, 30, 20)):
            table.add(MODEL, LOAD, RATE, "ours", i, value)
        table.add("1b", LOAD, RATE, "ours", 0, 99)
        lines = table.markdown(MODEL)
        self.assertEqual(len({line.count("|") for line in lines}), 1)
        self.assertIn("| 20.0 (10.0-30.0) | - |", lines[2])
        self.assertTrue(lines[3].startswith("| process |"))
        self.assertNotIn("99", "".join(lines))

    def test_csv_has_a_row_a_round_and_quotes_the_load(self):
        file = io.StringIO()
        table_of(RATE, {"ours": [1.5, 2.5]}).write_csv(file, ["a machine"])
        lines = file.getvalue().splitlines()
        self.assertEqual(lines[0], "# a machine")
        self.assertEqual(lines[2], 'smollm2,"8 clients, 128 + 64",output tok/s,ours,0,1.5')
        self.assertEqual(len(lines), 4)

    def test_names_and_numbers(self):
        self.assertEqual(load_name(Load(1, 3, 128, 64)), "1 client, 128 + 64")
        self.assertEqual([number(v) for v in (0.123, 12.34, 1234.5, float("nan"))], ["0.12", "12.3", "1234", "-"])


class Completions(http.server.BaseHTTPRequestHandler):
    """Streams three tokens; refuses prompts of four ids. Healthy."""

    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if len(body["prompt"]) == 4:
            return self.send_error(503)
        self.send_response(200)
        self.end_headers()
        for i in range(3):
            self.wfile.write(b'data: {"choices": [{"text": "x"}]}\n\n')
            self.wfile.flush()
            time.sleep(0.01)
        self.wfile.write(b'data: {"choices": [], "usage": {"completion_tokens": 3}}\n\ndata: [DONE]\n\n')

    def log_message(self, *unused):
        pass


class LoadTest(unittest.TestCase):
    def setUp(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Completions)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def tearDown(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def test_a_round_counts_tokens_and_times_them(self):
        figures = own_round(self.url, Load(2, 4, 8, 3), 1)
        self.assertEqual(set(figures), set(FIGURES))
        self.assertEqual(figures["errors"], 0)
        self.assertGreaterEqual(figures["ITL p50 ms"], 9)
        self.assertAlmostEqual(figures["total tok/s"] / figures["output tok/s"], 11 / 3)

    def test_a_round_counts_what_fails(self):
        figures = own_round(self.url, Load(2, 3, 4, 3), 1)
        self.assertEqual(figures["errors"], 3)
        self.assertEqual(figures["output tok/s"], 0)
        self.assertTrue(math.isnan(figures["ITL p50 ms"]))

    def test_percentiles(self):
        self.assertEqual(percentile_ms([3, 1, 2], .5), 2000)
        self.assertEqual(percentile_ms([3, 1, 2], .99), 3000)


HEALTHY = """
import http.server, subprocess, sys
sys.path.insert(0, sys.argv[2])
from serving_test import Completions
subprocess.Popen(["sh", "-c", "trap '' TERM; exec sleep 1000"])
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Completions).serve_forever()
"""


class ServerTest(unittest.TestCase):
    def test_a_server_is_ready_when_healthy_and_its_whole_group_ends(self):
        here = os.path.dirname(os.path.abspath(__file__))
        with Server("healthy", [sys.executable, "-B", "-c", HEALTHY, "PORT", here]) as server:
            self.assertGreater(server.wait_ready(), 0)
            group = server.process.pid
            self.assertEqual(len(server.members()), 2)
            self.assertGreater(server.resident_mb()[0], 1)
            self.assertGreater(server.cpu_seconds(), 0)
        deadline = time.monotonic() + 10
        while group_members(group) and time.monotonic() < deadline:  # the child is another's to reap
            time.sleep(0.01)
        self.assertEqual(group_members(group), [])

    def test_rest_is_waited_for_but_not_for_ever(self):
        class Spinning:
            def __init__(self, looks):
                self.looks, self.calls, self.used = looks, 0, 0.0

            def cpu_seconds(self):
                self.calls += 1
                if self.calls <= 2 * self.looks:
                    self.used += 1
                return self.used

        brief, still = Spinning(3), Spinning(0)
        self.assertTrue(wait_for_rest([still, brief], look_s=0.001, limit_s=10))
        self.assertEqual(brief.calls, 8)
        self.assertFalse(wait_for_rest([still, Spinning(10 ** 9)], look_s=0.001, limit_s=0.02))

    def test_a_server_that_ends_says_what_it_said(self):
        with Server("broken", ["sh", "-c", "echo no such model; exit 3"]) as server:
            with self.assertRaisesRegex(RuntimeError, "ended with 3(.|\n)*no such model"):
                server.wait_ready()

    def test_a_server_that_is_never_ready_is_given_up(self):
        with Server("deaf", ["sleep", "1000"], timeout_s=0.2) as server:
            with self.assertRaisesRegex(RuntimeError, "not ready after 0.2 s"):
                server.wait_ready()


class HelpTest(unittest.TestCase):
    def test_help_teaches_and_a_bad_argument_is_named(self):
        program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "serving.py")
        run = lambda *args: subprocess.run([sys.executable, "-B", program, *args], capture_output=True, text=True)  # noqa: E731
        self.assertIn("./dev bench --only 1b", run("--help").stdout)
        self.assertIn("--only", run("--build", "b", "--model", "m", "--only", "7b").stderr)


if __name__ == "__main__":
    unittest.main()
