"""/metrics as Prometheus reads it: names, types, and that the figures are those of the requests made."""
import math
import threading

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from daemon import Daemon

PREFIX = "fastgen:"
HISTOGRAMS = ["iteration_tokens_total", "time_to_first_token_seconds", "inter_token_latency_seconds",
              "e2e_request_latency_seconds", "request_queue_time_seconds", "request_prefill_time_seconds",
              "request_decode_time_seconds", "request_prompt_tokens", "request_generation_tokens"]
PER_REQUEST = [name for name in HISTOGRAMS if name.startswith("request_") or name.startswith("e2e")]
COUNTERS = ["prefix_cache_queries_total", "prefix_cache_hits_total", "prefix_cache_device_hits_total",
            "prefix_cache_host_hits_total", "num_preemptions_total", "num_swaps_total", "num_wasted_rows_total",
            "prompt_tokens_total", "generation_tokens_total", "engine_steps_total", "request_success_total",
            "request_refused_total"]
GAUGES = ["num_requests_running", "num_requests_waiting", "num_tokens_waiting", "kv_cache_usage_perc", "kv_cache_blocks",
          "kv_cache_cached_blocks", "host_kv_cache_usage_perc", "host_kv_cache_blocks", "paused", "build_info"]
MODEL = "SmolLM2-135M-Instruct.Q4_1"


class Scrape:
    """One reading of /metrics: types by family, values by sample."""

    def __init__(self, daemon):
        status, headers, body = daemon.get("/metrics")
        assert status == 200
        assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        self.types, self.values = {}, {}
        for family in text_string_to_metric_families(body.decode()):
            assert family.documentation, family.name
            self.types[family.name] = family.type
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                assert key not in self.values, key
                assert math.isfinite(sample.value) and sample.value >= 0, key
                self.values[key] = sample.value

    def get(self, name, **labels):
        return self.values[(PREFIX + name, tuple(sorted({"model_name": MODEL, **labels}.items())))]

    def buckets(self, name):
        """[(bound, cumulative count)] of a histogram, in order."""
        found = [(float(dict(labels)["le"]), value) for (sample, labels), value in self.values.items()
                 if sample == f"{PREFIX}{name}_bucket"]
        return sorted(found)

    def monotonic(self):
        """What may never fall: counters, and the counts and sums of histograms."""
        ends = ("_total", "_bucket", "_count", "_sum")
        return {key: value for key, value in self.values.items() if key[0].endswith(ends)}


@pytest.fixture(scope="module")
def quiet():
    """A daemon that nobody else talks to."""
    with Daemon() as running:
        yield running
        assert running.stop() == 0, running.log


def complete(daemon, prompt, **fields):
    status, answer = daemon.post("/v1/completions", {"prompt": prompt, "temperature": 0, **fields})
    assert status == 200, answer
    return answer["usage"]


def test_every_name_is_there_with_its_type_before_and_after_traffic(quiet):
    for _ in range(2):
        scrape = Scrape(quiet)
        for names, kind in ((HISTOGRAMS, "histogram"), (COUNTERS, "counter"), (GAUGES, "gauge")):
            for name in names:
                # The parser takes "_total" off a counter's family.
                family = PREFIX + (name.removesuffix("_total") if kind == "counter" else name)
                assert scrape.types.get(family) == kind, name
        for name in ("cpu_seconds", "start_time_seconds", "resident_memory_bytes", "virtual_memory_bytes", "open_fds", "max_fds"):
            assert f"process_{name}" in scrape.types, name
        assert scrape.values[("process_resident_memory_bytes", ())] > 50e6
        complete(quiet, "Once upon a time", max_tokens=4)


def test_counters_are_the_sums_of_the_usages_and_histograms_count_the_requests(quiet):
    before = Scrape(quiet)
    usages = [complete(quiet, f"Number {i} is", max_tokens=3 + i, ignore_eos=True) for i in range(5)]
    usages.append(complete(quiet, "The capital of France is", max_tokens=6, n=3, ignore_eos=True))
    after = Scrape(quiet)

    def grown(name, **labels):
        return after.get(name, **labels) - before.get(name, **labels)

    assert grown("prompt_tokens_total") == sum(usage["prompt_tokens"] for usage in usages)
    output = sum(usage["completion_tokens"] for usage in usages)
    assert grown("generation_tokens_total") == output == grown("request_generation_tokens_sum")
    assert grown("request_prompt_tokens_sum") == sum(usage["prompt_tokens"] for usage in usages)
    for name in PER_REQUEST + ["time_to_first_token_seconds"]:
        assert grown(name + "_count") == len(usages), name
    assert grown("request_success_total", finished_reason="length") == len(usages)
    for reason in ("stop", "abort", "deadline", "error"):
        assert grown("request_success_total", finished_reason=reason) == 0
    # Each choice has one gap less than tokens, unless some of its first tokens came together.
    assert 0 < grown("inter_token_latency_seconds_count") <= output - (len(usages) + 2)
    assert grown("engine_steps_total") == grown("iteration_tokens_total_count") > 0
    assert grown("iteration_tokens_total_sum") >= output
    assert grown("e2e_request_latency_seconds_sum") >= grown("request_queue_time_seconds_sum")
    assert grown("prefix_cache_queries_total") >= grown("prefix_cache_hits_total") >= 0


def test_a_histogram_is_cumulative_and_ends_with_its_count(quiet):
    complete(quiet, "One more", max_tokens=3)
    scrape = Scrape(quiet)
    for name in HISTOGRAMS:
        buckets = scrape.buckets(name)
        counts = [count for _, count in buckets]
        assert counts == sorted(counts), name
        assert buckets[-1][0] == math.inf and buckets[-1][1] == scrape.get(name + "_count") > 0, name
    vllm_latency = [0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680]
    for name in PER_REQUEST:
        bounds = [bound for bound, _ in scrape.buckets(name)]
        if name.endswith("_seconds"):
            assert set(vllm_latency) <= set(bounds), name
        else:
            assert bounds[:6] == [1, 2, 5, 10, 20, 50] and bounds[-2] <= 8192, name


def test_reasons_and_refusals_are_told_apart(quiet):
    before = Scrape(quiet)
    complete(quiet, "The quick brown fox", max_tokens=32, stop=[" "])
    assert quiet.post("/v1/completions", {"prompt": "x" * 200000, "max_tokens": 4})[0] == 400
    after = Scrape(quiet)
    stop = dict(finished_reason="stop")
    assert after.get("request_success_total", **stop) - before.get("request_success_total", **stop) == 1
    refused = dict(code="INVALID_ARGUMENT")
    assert after.get("request_refused_total", **refused) - before.get("request_refused_total", **refused) == 1


def test_nothing_falls_under_concurrency_and_cancels(quiet, pb):
    with grpc.insecure_channel(quiet.grpc) as channel:
        stub = pb.inference_grpc.InferenceStub(channel)
        before = Scrape(quiet)
        stopping, started = pb.inference.Stopping(max_tokens=48, ignore_eos=True), threading.Barrier(9)

        def client(number):
            started.wait()
            for i in range(4):
                call = stub.Generate(pb.inference.GenerateRequest(text=f"Client {number}, round {i}:", stopping=stopping))
                events = 0
                try:
                    for _ in call:
                        events += 1
                        if number % 2 and events == 5:
                            call.cancel()
                except grpc.RpcError as error:
                    assert error.code() == grpc.StatusCode.CANCELLED

        threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        started.wait()
        last, busiest = before, 0
        while any(thread.is_alive() for thread in threads):
            now = Scrape(quiet)
            for key, value in last.monotonic().items():
                assert now.values[key] >= value, key
            busiest = max(busiest, now.get("num_requests_running"))
            last = now
        for thread in threads:
            thread.join()
    assert busiest > 1
    for _ in range(200):
        after = Scrape(quiet)
        if after.get("e2e_request_latency_seconds_count") - before.get("e2e_request_latency_seconds_count") == 32:
            break
    ended = {reason: after.get("request_success_total", finished_reason=reason)
             - before.get("request_success_total", finished_reason=reason) for reason in ("length", "abort", "error")}
    assert ended == {"length": 16, "abort": 16, "error": 0}
    assert after.get("num_requests_running") == after.get("num_requests_waiting") == after.get("kv_cache_usage_perc") == 0


def test_grpc_gives_the_same_text_and_what_is_not_built_says_so(quiet, pb):
    with grpc.insecure_channel(quiet.grpc) as channel:
        admin = pb.admin_grpc.AdminStub(channel)
        text = admin.GetMetrics(pb.admin.GetMetricsRequest()).prometheus_text
        families = [family.name for family in text_string_to_metric_families(text)]
        assert families == list(Scrape(quiet).types)
        assert admin.GetStats(pb.admin.GetStatsRequest()).prometheus_text.split("\n")[0] == text.split("\n")[0]
        for method in ("StartProfile", "StopProfile", "Sleep", "WakeUp", "UpdateWeights"):
            with pytest.raises(grpc.RpcError) as refused:
                getattr(admin, method)(getattr(pb.admin, method + "Request")())
            assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
            assert method in refused.value.details()
    for path in ("/start_profile", "/stop_profile", "/sleep", "/wake_up", "/update_weights"):
        status, answer = quiet.post(path, {})
        assert status == 501 and answer["error"]["code"] == "not_implemented", path


def test_metrics_are_served_while_the_daemon_drains(pb):
    with Daemon() as daemon, grpc.insecure_channel(daemon.grpc) as channel:
        stub, admin = pb.inference_grpc.InferenceStub(channel), pb.admin_grpc.AdminStub(channel)
        call = stub.Generate(pb.inference.GenerateRequest(
            text="Count:", stopping=pb.inference.Stopping(max_tokens=1500, ignore_eos=True)))
        next(call), next(call)
        admin.Drain(pb.admin.DrainRequest())
        with pytest.raises(grpc.RpcError) as refused:
            list(stub.Generate(pb.inference.GenerateRequest(text="new")))
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        scrape = Scrape(daemon)
        assert scrape.get("num_requests_running") == 1
        assert scrape.get("request_refused_total", code="UNAVAILABLE") == 1
        assert list(call)[-1].finished.usage.output_tokens == 1500
        assert daemon.wait() == 0, daemon.log
