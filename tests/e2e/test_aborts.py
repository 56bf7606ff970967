"""Clients that leave mid-stream, in every dialect, through their official clients: the daemon's work ends with them.

An own daemon, so that its count of running requests is that of these tests alone.
"""
import asyncio
import time

import anthropic
import grpc
import openai
import pytest

from daemon import Daemon
from test_grpc import wait_all_free

TURN = [{"role": "user", "content": "Count from one to a thousand."}]
LONG = {"logit_bias": {"0": -100, "2": -100}}  # no end token: nothing but its reader ends such an answer before its 3000 tokens
MAX = 3000


@pytest.fixture(scope="module")
def own():
    with Daemon("--max-model-len", "4096") as running:
        yield running
        assert running.stop() == 0, running.log


@pytest.fixture(scope="module")
def own_admin(own, pb):
    with grpc.insecure_channel(own.grpc) as channel:
        yield pb.admin_grpc.AdminStub(channel)


def chat(client, **more):
    return client.chat.completions.create(model="m", messages=TURN, max_tokens=MAX, extra_body=LONG, **more)


def completions(client, **more):
    return client.completions.create(model="m", prompt="One, two,", max_tokens=MAX, extra_body=LONG, **more)


def responses(client, **more):
    return client.responses.create(model="m", input=TURN, max_output_tokens=MAX, extra_body=LONG, **more)


def messages(client, **more):
    return client.messages.create(model="m", messages=TURN, max_tokens=MAX, extra_body=LONG, **more)


DIALECTS = [chat, completions, responses, messages]


def make_client(daemon, dialect, library_openai, library_anthropic, **more):
    if dialect is messages:
        return library_anthropic(base_url=daemon.http, api_key="none", max_retries=0, **more)
    return library_openai(base_url=daemon.http + "/v1", api_key="none", max_retries=0, **more)


def wait_running(admin, pb, count):
    deadline = time.monotonic() + 20
    while admin.GetStats(pb.admin.GetStatsRequest()).num_running != count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_closed_stream_ends_its_work(own, own_admin, pb, dialect):
    with make_client(own, dialect, openai.OpenAI, anthropic.Anthropic) as client:
        with dialect(client, stream=True) as stream:
            for _ in range(8):
                next(stream)
            assert own_admin.GetStats(pb.admin.GetStatsRequest()).num_running == 1
        wait_all_free(own_admin, pb)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_async_streams_that_are_left_end_their_work_and_no_other(own, own_admin, pb, dialect):
    async def read(stream, count):
        async for _ in stream:
            count -= 1
            if count == 0:
                return

    async def run():
        async with make_client(own, dialect, openai.AsyncOpenAI, anthropic.AsyncAnthropic) as client:
            left = [await dialect(client, stream=True) for _ in range(3)]
            kept = await dialect(client, stream=True)
            await asyncio.gather(*[read(stream, 6) for stream in left], read(kept, 6))
            for stream in left:
                await stream.close()
            await asyncio.to_thread(wait_running, own_admin, pb, 1)
            await read(kept, 6)
            await kept.close()
    asyncio.run(run())
    wait_all_free(own_admin, pb)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_cancelled_task_ends_its_whole_answer(own, own_admin, pb, dialect):
    """Without a stream there is nothing to write until the end: that the reader left is seen all the same."""
    async def run():
        async with make_client(own, dialect, openai.AsyncOpenAI, anthropic.AsyncAnthropic) as client:
            task = asyncio.create_task(dialect(client))
            await asyncio.to_thread(wait_running, own_admin, pb, 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    asyncio.run(run())
    wait_all_free(own_admin, pb)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_client_that_runs_into_its_own_timeout_ends_its_work(own, own_admin, pb, dialect):
    client = make_client(own, dialect, openai.OpenAI, anthropic.Anthropic, timeout=0.3)
    with pytest.raises((openai.APITimeoutError, anthropic.APITimeoutError)):
        dialect(client)
    wait_all_free(own_admin, pb)


def test_the_stream_helpers_may_be_left(own, own_admin, pb):
    client = openai.OpenAI(base_url=own.http + "/v1", api_key="none", max_retries=0)
    with client.chat.completions.stream(model="m", messages=TURN, max_tokens=MAX, extra_body=LONG) as stream:
        kinds = [next(stream).type for _ in range(8)]
    assert "content.delta" in kinds
    with client.responses.stream(model="m", input=TURN, max_output_tokens=MAX, extra_body=LONG) as stream:
        kinds = [next(stream).type for _ in range(8)]
    assert "response.output_text.delta" in kinds
    wait_all_free(own_admin, pb)
