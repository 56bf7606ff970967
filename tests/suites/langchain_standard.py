"""langchain's standard integration tests for chat models, with its OpenAI client on a server of ours. Run by langchain_suite.py."""
import os

from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests


class TestFastgen(ChatModelIntegrationTests):
    @property
    def chat_model_class(self):
        return ChatOpenAI

    @property
    def chat_model_params(self):
        # A bound on what a small model rambles.
        return {"model": "fastgen", "base_url": os.environ["FASTGEN_HTTP"] + "/v1", "api_key": "none", "max_retries": 0,
                "temperature": 0, "max_tokens": 200, "stream_usage": True}

    @property
    def supports_json_mode(self):
        return True

    @property
    def supports_image_inputs(self):
        return False

    @property
    def has_tool_choice(self):
        return True

    @property
    def supports_model_override(self):
        return True

    @property
    def model_override_value(self):
        return "another"
