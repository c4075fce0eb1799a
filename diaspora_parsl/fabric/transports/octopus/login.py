"""Login at Octopus by ``diaspora-event-sdk``; the only file that imports it and ``globus_sdk``."""

from __future__ import annotations

import importlib
import os
import re
import threading
import time
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from diaspora_parsl.errors import ConfigurationError, FabricUnavailableError, FabricURLError
from diaspora_parsl.fabric.base import redacted

DEFAULT_TIMEOUT: Final = 10.0
_NAMESPACE: Final = re.compile(r"ns-[0-9a-f]{12}")

#: Environment variables of the SDK; a process that has them needs no login for Kafka.
KEY_VARIABLES: Final = ("OCTOPUS_AWS_ACCESS_KEY_ID", "OCTOPUS_AWS_SECRET_ACCESS_KEY", "OCTOPUS_BOOTSTRAP_SERVERS")
_ID, _SECRET = "DIASPORA_SDK_CLIENT_ID", "DIASPORA_SDK_CLIENT_SECRET"
_REGION: Final = "us-east-1"
#: Seconds between two requests for a key, because a request may revoke the key of another process.
_KEY_EVERY: Final = 60.0
_NOT_LOGGED_IN: Final = (
    "Nobody is logged in to Octopus here. Set DIASPORA_SDK_CLIENT_ID and DIASPORA_SDK_CLIENT_SECRET (an identity of "
    'programs), or log in once by hand: python -c "from diaspora_event_sdk import Client; Client()". For Kafka alone, '
    f"setting {', '.join(KEY_VARIABLES)} will do."
)


class Address:
    """Parsed URL of Octopus.

    Raises:
        FabricURLError: The URL is invalid.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.url = url
        self.namespace = parts.netloc
        self.others = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.service = self.others.pop("service", None)
        try:
            self.timeout = float(self.others.pop("timeout", DEFAULT_TIMEOUT))
        except ValueError:
            self.timeout = 0.0
        if not _NAMESPACE.fullmatch(self.namespace) or parts.path.strip("/") or parts.fragment:
            raise self.wrong("a namespace is ns- and twelve of 0-9a-f")
        if not 0.1 <= self.timeout <= 60:  # noqa: PLR2004 - the message names the limits
            raise self.wrong("timeout is in seconds, 0.1 to 60")

    def wrong(self, reason: str) -> FabricURLError:
        """Return the error to raise."""
        return FabricURLError(
            f'fabric="{redacted(self.url)}" cannot be used ({reason}). Write "octopus://ns-0123456789ab", or '
            f'"octopus+https://ns-0123456789ab" where the ports of Kafka are closed; '
            f"diaspora_event_sdk.Client().namespace says which is yours."
        )


def _sdk(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigurationError(
            'octopus:// needs diaspora-event-sdk. Install it: pip install "diaspora-parsl[octopus]".'
        ) from error


class Login:
    """An existing login; never prompts a person. Thread-safe.

    Args:
        timeout: Seconds to wait for one request.
        service: Base URL of the web service; default of the SDK if not given.
        needs_login: Whether a login is required even with a key in the environment.

    Raises:
        ConfigurationError: There is no login, or the SDK is missing. The service is contacted later.
    """

    def __init__(self, timeout: float, service: str | None = None, *, needs_login: bool = True) -> None:
        self._timeout = timeout
        self._service = service
        self._lock = threading.Lock()
        self._authorizers: dict[str, Any] = {}
        self._subject = ""
        self._asked = 0.0
        _sdk("diaspora_event_sdk")
        self.has_key = all(os.environ.get(name) for name in KEY_VARIABLES)
        account, secret = os.environ.get(_ID), os.environ.get(_SECRET)
        if bool(account) != bool(secret) and secret:
            raise ConfigurationError(f"{_SECRET} is set and {_ID} is not. Set both, or unset both to use a login.")
        self._is_program = bool(account and secret)
        #: Whether a login exists, not only a key.
        self.is_account = self._is_program or not self._app().login_required()
        if not self.is_account and (needs_login or not self.has_key):
            raise ConfigurationError(_NOT_LOGGED_IN)

    def _app(self) -> Any:
        sdk, scopes = _sdk("diaspora_event_sdk"), _sdk("globus_sdk.scopes").AuthScopes
        app = sdk.get_globus_app()
        server, scope = sdk.Client.DIASPORA_RESOURCE_SERVER, sdk.Client.DIASPORA_SCOPE
        app.add_scope_requirements({server: [scope], scopes.resource_server: [scopes.openid]})
        return app

    def _bounds(self) -> dict[str, Any]:
        """The SDK's own defaults are six tries of a minute each."""
        transport = _sdk("globus_sdk.transport")
        return {
            "transport": transport.RequestsTransport(http_timeout=self._timeout),
            # One, for a token that has expired.
            "retry_config": transport.RetryConfig(max_retries=1, max_sleep=1, backoff=lambda _: 0.1),
        }

    def _authorizer(self, server: str, scope: Any) -> Any:
        if server not in self._authorizers:
            if self._is_program:
                client = _sdk("globus_sdk").ConfidentialAppAuthClient(
                    os.environ[_ID], os.environ[_SECRET], **self._bounds()
                )
                kind = _sdk("diaspora_event_sdk.sdk.client").FilteredClientCredentialsAuthorizer
                self._authorizers[server] = kind(client, [scope], resource_server=server)
            else:
                self._authorizers[server] = self._app().get_authorizer(server)
        return self._authorizers[server]

    def client(self) -> Any:
        """Return a client of the SDK with bounded requests, for one thread.

        Raises:
            FabricUnavailableError: The service did not answer, or refused the login.
        """
        sdk, globus = _sdk("diaspora_event_sdk"), _sdk("globus_sdk")
        scopes = globus.scopes.AuthScopes
        with self._lock:
            try:
                ours = self._authorizer(sdk.Client.DIASPORA_RESOURCE_SERVER, sdk.Client.DIASPORA_SCOPE)
                if not self._subject:
                    auth = globus.AuthClient(
                        authorizer=self._authorizer(scopes.resource_server, scopes.openid), **self._bounds()
                    )
                    self._subject = auth.userinfo()["sub"]
            except globus.GlobusError as error:
                raise unavailable(error) from error
            # The constructor of the SDK's client logs in by itself, with requests that take minutes to fail.
            client = sdk.Client.__new__(sdk.Client)
            client.app, client.authorizer, client.subject_openid = None, ours, self._subject
            client.namespace = f"ns-{self._subject.replace('-', '')[-12:]}"
            web = _sdk("diaspora_event_sdk.sdk.web_client").WebClient
            client.web_client = web(base_url=self._service, authorizer=ours, **self._bounds())
            return client

    def brokers(self) -> str:
        """Return the addresses of Kafka and enable `token`.

        Raises:
            FabricUnavailableError: The service did not answer, or refused the login.
        """
        if not self.has_key:
            if self._asked and time.monotonic() - self._asked < _KEY_EVERY:
                raise FabricUnavailableError("Octopus refused its own key; a new one is asked for within a minute")
            client = self.client()
            self._asked = time.monotonic()
            try:
                key = client.create_key()
                values = (key["access_key"], key["secret_key"], key["endpoint"])
            except (_sdk("globus_sdk").GlobusError, KeyError, TypeError) as error:
                raise unavailable(error) from error
            # Where the SDK's signature takes them from; an agent that this process starts finds them there too.
            os.environ.update(zip(KEY_VARIABLES, values, strict=True))
            self.has_key = True
        return os.environ[KEY_VARIABLES[2]]

    def forget_key(self) -> None:
        """After a refusal, request another key if this process requested the last one."""
        if self._asked:
            self.has_key = False

    def token(self, _: object) -> tuple[str, float]:
        """Return a token for Kafka and the Unix time at which it expires."""
        token, milliseconds = _sdk("diaspora_event_sdk.sdk.aws_iam_msk").generate_auth_token(_REGION)
        return token, milliseconds / 1000


def unavailable(error: Exception) -> FabricUnavailableError:
    """Return the exception for an error of the SDK."""
    status = getattr(error, "http_status", None)
    if status in (401, 403):
        return FabricUnavailableError(f"Octopus refuses the login ({status})")
    if status is not None:
        return FabricUnavailableError(f"Octopus answers {status}: {getattr(error, 'message', None) or 'no reason'}")
    return FabricUnavailableError(f"Octopus cannot be reached: {type(error).__name__}")


def errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that the SDK raises for failed requests."""
    return (_sdk("globus_sdk").GlobusError,)


def create_topics(client: Any, namespace: str, topics: Iterable[str]) -> None:
    """Create missing topics if the login owns the namespace.

    Raises:
        FabricUnavailableError: The service did not answer, or refused the request.
    """
    if client.namespace != namespace:
        return
    for topic in sorted(topics):
        try:
            client.create_topic(topic)
        except errors() as error:
            raise unavailable(error) from error


def new_reader(group: str, client: Any) -> Any:
    """Create a consumer instance at the web service; the caller sets its positions and replaces it when it expires.

    Raises:
        GlobusError: see `errors`.
    """
    consumer = _sdk("diaspora_event_sdk").RESTConsumer
    return consumer(group, client=client, format="binary", auto_offset_reset="earliest", recover=False)
