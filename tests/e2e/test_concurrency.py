"""Many clients at once, and what the others must not change."""
import concurrent.futures
import http.client
import json
import socket
import time

from test_grpc import wait_all_free

PROMPT = "The history of the city begins"


def wait_running(admin, pb, timeout=20):
    """Until a request has been admitted."""
    deadline = time.monotonic() + timeout
    while admin.GetStats(pb.admin.GetStatsRequest()).num_running == 0:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def ask(client, prompt, n=32):
    answer = client.completions.create(model="m", prompt=prompt, temperature=0, max_tokens=n,
                                       extra_body={"ignore_eos": True, "return_token_ids": True})
    return answer.choices[0].text, answer.choices[0].token_ids


def test_a_greedy_prompt_alone_and_among_31_others_is_the_same(client, admin, pb):
    alone = ask(client, PROMPT)
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        others = [pool.submit(ask, client, f"Story {i} " + "about many things " * i) for i in range(31)]
        among = pool.submit(ask, client, PROMPT)
        assert among.result() == alone
        for other in others:
            assert len(other.result()[1]) == 32
    wait_all_free(admin, pb)


def test_32_streams_get_all_their_tokens(client, admin, pb):
    def stream(i):
        chunks = client.completions.create(model="m", prompt=f"Number {i}:", temperature=1, seed=i, max_tokens=24, stream=True,
                                           stream_options={"include_usage": True}, extra_body={"ignore_eos": True})
        text, usage = "", None
        for chunk in chunks:
            text += "".join(choice.text for choice in chunk.choices)
            usage = chunk.usage or usage
        return text, usage.completion_tokens

    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        results = list(pool.map(stream, range(32)))
    assert all(text and tokens == 24 for text, tokens in results)
    # The same seeds alone give the same texts.
    assert stream(5) == results[5] and stream(17) == results[17]
    wait_all_free(admin, pb)


def test_disconnect_in_prefill_and_in_decode_frees_the_blocks(daemon, admin, pb):
    for prompt, wait_for_data in (("word " * 6000, False), ("Hello", True)):
        body = json.dumps({"prompt": prompt, "max_tokens": 2000, "ignore_eos": True, "stream": True}).encode()
        with socket.create_connection(("127.0.0.1", daemon.http_port)) as connection:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
                               + str(len(body)).encode() + b"\r\n\r\n" + body)
            if wait_for_data:
                data = b""
                while b"data:" not in data:
                    data += connection.recv(4096)
            else:
                wait_running(admin, pb)
        wait_all_free(admin, pb)


def test_disconnect_without_streaming_frees_the_blocks(daemon, admin, pb):
    connection = http.client.HTTPConnection("127.0.0.1", daemon.http_port)
    connection.request("POST", "/v1/completions", json.dumps({"prompt": "Hello", "max_tokens": 3000, "ignore_eos": True}),
                       {"Content-Type": "application/json"})
    wait_running(admin, pb)
    connection.sock.close()
    connection.close()
    wait_all_free(admin, pb)


def test_a_long_prompt_does_not_stop_running_streams(client):
    """Chunked prefill: a decoding stream goes on while a long prompt is processed."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        stream = client.completions.create(model="m", prompt="One", max_tokens=4000, stream=True, extra_body={"ignore_eos": True})
        next(iter(stream))
        long = pool.submit(ask, client, "word " * 5000, 1)
        seen_while_prefilling = 0
        for _ in stream:
            seen_while_prefilling += 1
            if long.done():
                break
        stream.close()
        long.result()
    # 5000 tokens are at least ten steps of --max-num-batched-tokens (512); each of them decodes too.
    assert seen_while_prefilling >= 8
