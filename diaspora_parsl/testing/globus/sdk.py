"""Clients of the real SDK for a local service."""

from __future__ import annotations

from typing import Any

from globus_compute_sdk import Client
from globus_compute_sdk.sdk.client import _ComputeWebClient
from globus_sdk import AccessTokenAuthorizer


def client(url: str, *, do_version_check: bool = True, **options: Any) -> Client:
    """Return an unmodified client of the SDK for a service at any address.

    The SDK's own option, ``Client(local_compute_services=True)``, only reaches port 5000 of this host. For other
    addresses this function replaces the web client by one of the same class, as the SDK's tests do.

    Args:
        url: URL of the service, such as ``http://127.0.0.1:40123``.
        do_version_check: Ask the service whether it supports this version of the SDK.
        options: Further arguments of `globus_compute_sdk.Client`.
    """
    authorizer = AccessTokenAuthorizer("any token will do")
    made = Client(authorizer=authorizer, do_version_check=False, **options)
    made.web_service_address = url
    made._compute_web_client = _ComputeWebClient(base_url=url, authorizer=authorizer)  # noqa: SLF001 - see above
    if do_version_check:
        made.version_check()
    return made
