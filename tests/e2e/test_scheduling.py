"""What the scheduler promises, on the real model: choices, deadlines, cancels, plans, pauses, the prefix cache, resumption."""
import concurrent.futures
import random
import threading
import time

import grpc
import pytest

from daemon import Daemon
from test_grpc import wait_all_free
from test_hostile import rss_mib

LONG = "The quick brown fox jumps over the lazy dog while seven wizards watch from the hill. "


def request(pb, text="Once upon a time", max_tokens=16, temperature=0.0, ignore_eos=True, **fields):
    made = pb.inference.GenerateRequest(
        text=text, sampling=pb.inference.Sampling(temperature=temperature), output=pb.inference.Output(token_ids=True),
        stopping=pb.inference.Stopping(max_tokens=max_tokens, ignore_eos=ignore_eos))
    for name, value in fields.items():
        setattr(made, name, value)
    return made


class Answer:
    """The events of one stream, sorted by choice."""

    def __init__(self, events):
        self.accepted, self.ids, self.finished, self.error, self.progress = None, {}, {}, None, []
        self.num_tokens = 0
        self.start, self.first_token = time.monotonic(), None
        try:
            for event in events:
                self.take(event)
        except grpc.RpcError as error:
            self.error = error

    def take(self, event):
        kind = event.WhichOneof("event")
        if kind == "accepted":
            self.accepted = event.accepted
        elif kind == "progress":
            self.progress.append((event.progress.processed, event.progress.total))
        elif kind == "delta":
            if event.delta.num_tokens and self.first_token is None:
                self.first_token = time.monotonic() - self.start
            self.num_tokens += event.delta.num_tokens
            self.ids.setdefault(event.delta.index, []).extend(event.delta.token_ids)
        else:
            self.finished[event.finished.index] = event.finished


def ask(stub, made, **call):
    answer = Answer(stub.Generate(made, **call))
    assert answer.error is None, answer.error
    return answer


def stats_of(admin, pb):
    return admin.GetStats(pb.admin.GetStatsRequest())


class Client:
    """Stubs of a daemon of its own."""

    def __init__(self, pb, *args):
        self.daemon = Daemon(*args)
        self.channel = grpc.insecure_channel(self.daemon.grpc)
        self.stub = pb.inference_grpc.InferenceStub(self.channel)
        self.admin = pb.admin_grpc.AdminStub(self.channel)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.channel.close()
        self.daemon.__exit__(*error)


def test_choices_of_one_seed_differ_and_the_first_is_the_single_one(stub, admin, pb):
    made = request(pb, temperature=1.0, max_tokens=24)
    made.sampling.seed = 11
    single = ask(stub, made)
    made.n = 4
    four = ask(stub, made)
    assert sorted(four.ids) == sorted(four.finished) == [0, 1, 2, 3]
    assert four.ids[0] == single.ids[0]
    assert len({tuple(ids) for ids in four.ids.values()}) == 4
    assert all(f.usage.output_tokens == 24 and f.usage.prompt_tokens == single.finished[0].usage.prompt_tokens
               for f in four.finished.values())
    assert ask(stub, made).ids == four.ids  # and again the same
    wait_all_free(admin, pb)


def test_greedy_choices_are_equal(stub, pb):
    made = request(pb, max_tokens=8)
    made.n = 3
    answer = ask(stub, made)
    assert answer.ids[0] == answer.ids[1] == answer.ids[2]


def test_best_of_delivers_the_likeliest_choices(stub, admin, pb):
    made = request(pb, temperature=1.5, max_tokens=12)
    made.sampling.seed = 3
    made.output.logprobs = 0

    def mean_logprobs(n, best_of):
        made.n, made.best_of = n, best_of
        sums = {}
        for event in stub.Generate(made):
            for row in event.delta.logprobs:
                sums.setdefault(event.delta.index, []).append(row.logprob)
        return sorted(sum(rows) / len(rows) for rows in sums.values())

    everything = mean_logprobs(5, 5)
    best = mean_logprobs(2, 5)
    assert len(best) == 2 and best == pytest.approx(everything[-2:], abs=1e-4)
    wait_all_free(admin, pb)


def test_openai_n_and_usage(client):
    answer = client.completions.create(model="m", prompt=["One", "Two"], n=2, temperature=1, seed=5, max_tokens=6,
                                       extra_body={"ignore_eos": True})
    assert [c.index for c in answer.choices] == [0, 1, 2, 3]
    assert answer.usage.completion_tokens == 24
    single = client.completions.create(model="m", prompt="One", temperature=1, seed=5, max_tokens=6,
                                       extra_body={"ignore_eos": True})
    assert answer.usage.prompt_tokens == 2 * single.usage.prompt_tokens
    assert answer.choices[0].text == single.choices[0].text
    texts = {i: "" for i in range(4)}
    for chunk in client.completions.create(model="m", prompt=["One", "Two"], n=2, temperature=1, seed=5, max_tokens=6,
                                           stream=True, extra_body={"ignore_eos": True}):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert [texts[i] for i in range(4)] == [c.text for c in answer.choices]


def test_a_deadline_mid_decode_comes_with_what_was_done(stub, admin, pb):
    answer = Answer(stub.Generate(request(pb, max_tokens=4000), timeout=1.5))
    assert answer.error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    finished = answer.finished[0]
    assert finished.reason == pb.inference.DEADLINE
    assert 0 < finished.usage.output_tokens == answer.num_tokens
    assert finished.receipt.num_steps > 0
    trailers = dict(answer.error.trailing_metadata())
    assert trailers["x-fastgen-usage"] == f"prompt={finished.usage.prompt_tokens},output={finished.usage.output_tokens}"
    wait_all_free(admin, pb)


def test_a_deadline_in_the_queue_ends_there(pb):
    with Client(pb, "--max-num-seqs", "1", "--max-model-len", "2048") as own:
        first = own.stub.Generate(request(pb, max_tokens=1500))
        next(first), next(first)
        start = time.monotonic()
        waiting = Answer(own.stub.Generate(request(pb, "Another story", max_tokens=5), timeout=1.0))
        assert waiting.error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - start < 2
        # Refused at once by the estimate, or dropped from the queue with nothing done.
        if waiting.finished:
            assert waiting.finished[0].usage.output_tokens == 0
        first.cancel()
        wait_all_free(own.admin, pb)


def test_cancels_at_random_times_leave_the_gauges_at_zero(pb):
    rng = random.Random(7)

    def one(i):
        made = request(pb, LONG * rng.randint(1, 12) + str(i), max_tokens=400, temperature=1.0)
        made.n = rng.choice([1, 1, 1, 3])
        stream = own.stub.Generate(made)
        timer = threading.Timer(rng.random() * 1.5, stream.cancel)
        timer.start()
        try:
            for _ in stream:
                pass
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.CANCELLED
        timer.cancel()

    # A small KV cache: its memory counts when it is first written, and the first round must write all of it. Allocators
    # keep what a burst needed, now and then a little more; a leak grows in every round.
    with Client(pb, "--kv-cache-gib", "0.1") as own:
        sizes = []
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            for first in range(0, 300, 50):
                list(pool.map(one, range(first, first + 50)))
                wait_all_free(own.admin, pb)
                sizes.append(rss_mib(own.daemon))
        assert min(after - before for before, after in zip(sizes, sizes[1:])) < 4, sizes
        assert list(own.admin.ListRequests(pb.admin.ListRequestsRequest()).requests) == []


def test_plan_says_what_generate_does(stub, admin, pb):
    made = request(pb, LONG * 40 + "plan", max_tokens=4)
    plan = stub.Plan(pb.inference.PlanRequest(request=made))
    assert plan.fits and plan.reason == "" and plan.queue_position == 0
    answer = ask(stub, made)
    assert plan.prompt_tokens == answer.accepted.prompt_tokens
    assert plan.cached_tokens_device + plan.cached_tokens_host == answer.finished[0].usage.cached_tokens
    again = stub.Plan(pb.inference.PlanRequest(request=made))
    assert again.cached_tokens_device + again.cached_tokens_host == ask(stub, made).finished[0].usage.cached_tokens > 0
    assert again.estimated_ttft.ToTimedelta() < plan.estimated_ttft.ToTimedelta()
    assert stats_of(admin, pb).num_running == 0
    # What can never fit is the same error in both.
    made.stopping.max_tokens = 100000
    for call in (lambda: stub.Plan(pb.inference.PlanRequest(request=made)), lambda: list(stub.Generate(made))):
        with pytest.raises(grpc.RpcError) as refused:
            call()
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "max_tokens" in refused.value.details()


def test_pause_holds_requests_and_resume_lets_them_go(stub, admin, pb):
    admin.Pause(pb.admin.PauseRequest())
    try:
        assert stats_of(admin, pb).paused
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            made = request(pb, max_tokens=4, request_id="held", priority=-3)
            waiting = pool.submit(ask, stub, made)
            deadline = time.monotonic() + 5
            listed = []
            while not listed and time.monotonic() < deadline:
                listed = list(admin.ListRequests(pb.admin.ListRequestsRequest()).requests)
            steps = stats_of(admin, pb).num_steps
            assert [(r.request_id, r.phase, r.output_tokens, r.priority) for r in listed] == [("held", "queued", 0, -3)]
            assert listed[0].prompt_tokens > 0
            time.sleep(0.3)
            assert not waiting.done() and stats_of(admin, pb).num_steps == steps
            admin.Resume(pb.admin.ResumeRequest())
            assert waiting.result(20).finished[0].usage.output_tokens == 4
    finally:
        admin.Resume(pb.admin.ResumeRequest())
    assert not stats_of(admin, pb).paused


def test_a_paused_daemon_still_cancels(stub, admin, pb):
    admin.Pause(pb.admin.PauseRequest())
    try:
        stream = stub.Generate(request(pb, max_tokens=4, request_id="paused"))
        deadline = time.monotonic() + 5
        while not stub.Cancel(pb.inference.CancelRequest(request_ids=["paused"])).cancelled:
            assert time.monotonic() < deadline
        assert Answer(stream).error.code() == grpc.StatusCode.CANCELLED
    finally:
        admin.Resume(pb.admin.ResumeRequest())
    wait_all_free(admin, pb)


def test_the_second_request_with_a_prompt_skips_its_prefill(stub, admin, pb):
    admin.FlushPrefixCache(pb.admin.FlushPrefixCacheRequest())
    ids = stub.Tokenize(pb.inference.TokenizeRequest(text=LONG * 200)).ids[:2000]
    made = request(pb, "", max_tokens=8)
    made.token_ids.ids.extend(ids)
    cold = ask(stub, made)
    warm = ask(stub, made)
    assert cold.finished[0].usage.cached_tokens == 0
    assert warm.finished[0].usage.cached_tokens >= 1900
    assert warm.ids == cold.ids
    assert warm.first_token <= 0.15 * cold.first_token, (warm.first_token, cold.first_token)
    # Other salts share nothing; a flush forgets.
    made.cache_salt = "other"
    assert ask(stub, made).finished[0].usage.cached_tokens == 0
    made.cache_salt = ""
    assert admin.FlushPrefixCache(pb.admin.FlushPrefixCacheRequest()).num_blocks > 0
    assert ask(stub, made).finished[0].usage.cached_tokens == 0
    counted = stats_of(admin, pb)
    assert counted.prefix_query_tokens > counted.prefix_device_hit_tokens >= 1900


def test_usage_tells_cached_tokens_over_http(client):
    prompt = LONG * 30 + "over http"
    client.completions.create(model="m", prompt=prompt, max_tokens=1)
    again = client.completions.create(model="m", prompt=prompt, max_tokens=1)
    assert again.usage.prompt_tokens_details.cached_tokens > 300


def test_the_host_tier_keeps_what_the_device_lost(pb):
    with Client(pb, "--max-model-len", "2048", "--kv-cache-gib", "0.05", "--host-kv-gib", "0.5") as own:
        assert "host KV cache" in own.daemon.log
        ids = list(own.stub.Tokenize(pb.inference.TokenizeRequest(text=LONG * 120)).ids)
        made = request(pb, "", max_tokens=4)
        made.token_ids.ids.extend(ids[:1500])
        cold = ask(own.stub, made)
        for i in range(6):  # other prompts push it out of the device's pool
            other = request(pb, "", max_tokens=1)
            other.token_ids.ids.extend([100 + i] + ids[:1400])
            ask(own.stub, other)
        before = stats_of(own.admin, pb)
        warm = ask(own.stub, made)
        after = stats_of(own.admin, pb)
        assert warm.ids == cold.ids
        assert after.prefix_host_hit_tokens > before.prefix_host_hit_tokens
        assert warm.finished[0].usage.cached_tokens >= 1024 and warm.finished[0].receipt.num_page_ins > 0
        assert warm.first_token < cold.first_token


def test_a_crowd_in_a_small_pool_finishes_with_the_answers_of_one_alone(pb):
    with Client(pb, "--max-model-len", "512", "--block-size", "16", "--kv-cache-gib", "0.02") as own:
        # Room for about 8 of them.
        assert stats_of(own.admin, pb).num_blocks * 16 < 1024
        made = [request(pb, f"Tale {i}: " + LONG * (3 + i % 4), max_tokens=48) for i in range(64)]
        with concurrent.futures.ThreadPoolExecutor(64) as pool:
            crowd = list(pool.map(lambda one: ask(own.stub, one).ids, made))
        own.admin.FlushPrefixCache(pb.admin.FlushPrefixCacheRequest())
        for i in range(0, 64, 9):
            assert ask(own.stub, made[i]).ids == crowd[i]
        wait_all_free(own.admin, pb)


def test_progress_is_told_when_asked_for(stub, pb):
    made = request(pb, LONG * 100 + "progress", max_tokens=1)
    made.output.progress = True
    answer = ask(stub, made)
    assert answer.progress and answer.progress[-1][0] == answer.progress[-1][1] == answer.accepted.prompt_tokens
    assert answer.progress == sorted(answer.progress)


def test_sampling_fields_steer_the_output(stub, pb):
    plain = ask(stub, request(pb)).ids[0]
    banned = request(pb)
    banned.sampling.logit_bias[plain[0]] = -100
    assert ask(stub, banned).ids[0][0] != plain[0]
    allowed = request(pb, temperature=1.0)
    allowed.sampling.allowed_token_ids.extend([100, 200, 300])
    assert set(ask(stub, allowed).ids[0]) <= {100, 200, 300}
    repeated = request(pb, "a a a a a a a a", max_tokens=24)
    repeated.sampling.repetition_penalty = 5
    repeated.sampling.frequency_penalty = 2
    ids = ask(stub, repeated).ids[0]
    assert len(set(ids)) > len(ids) // 2
    text = stub.Detokenize(pb.inference.DetokenizeRequest(ids=plain[:1])).text
    worded = request(pb)
    worded.sampling.bad_words.append(text.strip() or text)
    assert ask(stub, worded).ids[0][0] != plain[0]


def test_raw_bytes_are_those_of_the_tokens(stub, pb):
    made = request(pb, "Emoji: 🚀🚀🚀🚀", max_tokens=12)
    made.output.bytes = True
    raw, ids = b"", []
    for event in stub.Generate(made):
        raw += event.delta.raw
        ids.extend(event.delta.token_ids)
    text = stub.Detokenize(pb.inference.DetokenizeRequest(ids=ids)).text
    assert raw.decode(errors="replace") == text


def test_a_broken_stream_is_taken_up_where_it_stopped(stub, admin, pb):
    whole = ask(stub, request(pb, max_tokens=40)).ids[0]
    made = request(pb, max_tokens=40, request_id="broken")
    made.resume_window.seconds = 30
    stream = stub.Generate(made)
    got = []
    for event in stream:
        got.extend(event.delta.token_ids)
        if len(got) >= 10:
            break
    stream.cancel()
    rest = Answer(stub.Attach(pb.inference.AttachRequest(request_id="broken", from_token=len(got))))
    assert rest.error is None and rest.accepted.from_token == len(got)
    assert got + rest.ids[0] == whole
    assert rest.finished[0].usage.output_tokens == 40
    again = Answer(stub.Attach(pb.inference.AttachRequest(request_id="broken")))
    assert again.ids[0] == whole
    wait_all_free(admin, pb)


def test_attach_refuses_what_it_cannot_do(stub, pb):
    for made, code in ((pb.inference.AttachRequest(request_id="never"), grpc.StatusCode.NOT_FOUND),
                       (pb.inference.AttachRequest(request_id="never", from_token=-1), grpc.StatusCode.INVALID_ARGUMENT)):
        assert Answer(stub.Attach(made)).error.code() == code


def test_an_urgent_request_overtakes_the_queue(pb):
    with Client(pb, "--max-num-seqs", "1", "--max-model-len", "512") as own:
        own.admin.Pause(pb.admin.PauseRequest())
        order = []

        def one(name, priority):
            ask(own.stub, request(pb, max_tokens=8, request_id=name, priority=priority))
            order.append(name)

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            futures = []
            for name, priority in (("a", 0), ("b", 0), ("urgent", -5), ("idle", 5)):
                futures.append(pool.submit(one, name, priority))
                deadline = time.monotonic() + 5
                while stats_of(own.admin, pb).num_waiting < len(futures):
                    assert time.monotonic() < deadline
            own.admin.Resume(pb.admin.ResumeRequest())
            for future in futures:
                future.result(30)
        assert order == ["urgent", "a", "b", "idle"]


def test_a_full_queue_refuses_at_once_with_a_hint(pb):
    with Client(pb, "--max-queued-tokens", "64", "--max-num-seqs", "1", "--max-model-len", "512") as own:
        own.admin.Pause(pb.admin.PauseRequest())
        held = [own.stub.Generate(request(pb, "word " * 40, max_tokens=2)) for _ in range(1)]
        deadline = time.monotonic() + 5
        while stats_of(own.admin, pb).num_waiting < 1:
            assert time.monotonic() < deadline
        with pytest.raises(grpc.RpcError) as refused:
            list(own.stub.Generate(request(pb, "word " * 40, max_tokens=2)))
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        status, headers, _ = own.daemon.request("POST", "/v1/completions", {"prompt": "word " * 40, "max_tokens": 2})
        assert status == 429 and int(headers["Retry-After"]) >= 1
        own.admin.Resume(pb.admin.ResumeRequest())
        for stream in held:
            assert Answer(stream).error is None


def test_drain_by_call_ends_the_process(pb):
    with Client(pb, "--max-model-len", "512") as own:
        stream = own.stub.Generate(request(pb, max_tokens=60))
        next(stream)
        own.admin.Drain(pb.admin.DrainRequest())
        with pytest.raises(grpc.RpcError) as refused:
            list(own.stub.Generate(request(pb)))
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        assert Answer(stream).finished[0].usage.output_tokens == 60
        assert own.daemon.wait() == 0
        assert "drained" in own.daemon.log
