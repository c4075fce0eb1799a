"""Clients of the real SDK whose address is a local service."""

from __future__ import annotations

from typing import Any

from globus_compute_sdk import Client
from globus_compute_sdk.sdk.client import _ComputeWebClient
from globus_sdk import AccessTokenAuthorizer


def client(url: str, *, do_version_check: bool = True, **options: Any) -> Client:
    """A client of the SDK, as it is, for a service that is not the public one.

    The SDK has one public way to such a service, ``Client(local_compute_services=True)``, which only leads to port
    5000 of this host. For any other address the web client that it holds is replaced by one of the same class, as the
    SDK's own tests do.

    Args:
        url: of the service, such as ``http://127.0.0.1:40123``.
        do_version_check: ask the service at once whether it knows this version of the SDK.
        options: further arguments of `globus_compute_sdk.Client`.
    """
    authorizer = AccessTokenAuthorizer("any token will do")
    made = Client(authorizer=authorizer, do_version_check=False, **options)
    made.web_service_address = url
    made._compute_web_client = _ComputeWebClient(base_url=url, authorizer=authorizer)  # noqa: SLF001 - see above
    if do_version_check:
        made.version_check()
    return made
