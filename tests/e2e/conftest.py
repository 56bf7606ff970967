"""Fixtures: one daemon on the default model for the session, generated gRPC stubs, real clients."""
import importlib
import os
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)

from daemon import Daemon  # noqa: E402


@pytest.fixture(scope="session")
def pb(tmp_path_factory):
    """The fastgen.v1 modules, generated from the protos in the tree."""
    out = tmp_path_factory.mktemp("stubs")
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I", os.path.join(ROOT, "proto"), f"--python_out={out}",
                    f"--grpc_python_out={out}", "fastgen/v1/inference.proto", "fastgen/v1/admin.proto"], check=True)
    sys.path.insert(0, str(out))

    class Modules:
        inference = importlib.import_module("fastgen.v1.inference_pb2")
        inference_grpc = importlib.import_module("fastgen.v1.inference_pb2_grpc")
        admin = importlib.import_module("fastgen.v1.admin_pb2")
        admin_grpc = importlib.import_module("fastgen.v1.admin_pb2_grpc")

    return Modules


@pytest.fixture(scope="session")
def daemon():
    with Daemon() as running:
        yield running
        assert running.stop() == 0, running.log


@pytest.fixture(scope="session")
def tool_daemon():
    """The default model, taken for one that writes calls as Hermes does: it does when it is forced to."""
    with Daemon("--tool-call-parser", "hermes", "--max-model-len", "4096") as running:
        yield running
        assert running.stop() == 0, running.log


@pytest.fixture(scope="session")
def client(daemon):
    from openai import OpenAI
    return OpenAI(base_url=daemon.http + "/v1", api_key="foo", max_retries=0)


@pytest.fixture(scope="session")
def channel(daemon):
    import grpc
    with grpc.insecure_channel(daemon.grpc) as made:
        yield made


@pytest.fixture(scope="session")
def stub(pb, channel):
    return pb.inference_grpc.InferenceStub(channel)


@pytest.fixture(scope="session")
def admin(pb, channel):
    return pb.admin_grpc.AdminStub(channel)
