import os

import pytest


@pytest.fixture(scope="session")
def rabbitmq_url():
    if "EVENTMILL_TEST_RABBITMQ" not in os.environ:
        pytest.skip("no server")
    return os.environ["EVENTMILL_TEST_RABBITMQ"]
