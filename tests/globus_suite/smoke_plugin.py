"""Plugin for the smoke tests of globus-compute, used with --noconftest: their conftest, with a local service.

Only the client, the endpoint and the function that is there already are other than upstream's.
"""

from __future__ import annotations

import atexit
from typing import TYPE_CHECKING

import pytest
from conftest import *  # type: ignore[import-not-found]  # noqa: F403 - upstream's fixtures and options, found by PYTHONPATH
from globus_compute_sdk.serialize import DillCodeSource

from diaspora_parsl.testing.globus import LocalGlobusCompute

if TYPE_CHECKING:
    from globus_compute_sdk import Client


def say_hello_world() -> str:
    """What upstream's public function returns."""
    return "Hello World!"


@pytest.fixture(scope="session")
def local_service() -> LocalGlobusCompute:
    """The service of all tests; it ends after the threads that the SDK keeps to the end of the interpreter."""
    service = LocalGlobusCompute()
    service.start()
    atexit.register(service.stop)
    service.endpoint("smoke", workers=2)
    return service


@pytest.fixture(scope="session")
def compute_client(local_service: LocalGlobusCompute) -> Client:
    """A client with the options that upstream gives to its own."""
    return local_service.client(code_serialization_strategy=DillCodeSource())


@pytest.fixture
def endpoint(local_service: LocalGlobusCompute) -> str:
    """UUID of the endpoint."""
    return local_service.endpoints[0].id


@pytest.fixture(scope="session")
def tutorial_function_id(compute_client: Client) -> str:
    """UUID of a function that the service knows already."""
    return str(compute_client.register_function(say_hello_world))
