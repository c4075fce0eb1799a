"""Octopus, a hosted Kafka, where its ports are open; see `rest` for closed ports."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from diaspora_parsl.fabric.transports.kafka.client import Cluster, try_out
from diaspora_parsl.fabric.transports.kafka.options import KafkaOptions, parse
from diaspora_parsl.fabric.transports.kafka.transport import KafkaFabric
from diaspora_parsl.fabric.transports.octopus.login import Address, Login, create_topics


class _Cluster(Cluster):
    """Cluster that requests the broker addresses from the web service on demand."""

    def __init__(self, options: KafkaOptions, login: Login) -> None:
        super().__init__(options)
        self._login = login
        self._asking = threading.Lock()

    def properties(self) -> dict[str, Any]:
        with self._asking:
            return {"bootstrap.servers": self._login.brokers(), **super().properties()}

    def refused(self) -> None:
        self._login.forget_key()

    def create(self, topics: set[str]) -> None:
        if self._login.is_account:  # who has only the key takes what is there
            create_topics(self._login.client(), self._options.prefix, topics)


class OctopusFabric(KafkaFabric):
    """``octopus://namespace``: Kafka as in `KafkaFabric`, with the login of ``diaspora-event-sdk``.

    Options in the URL: ``timeout`` (seconds, default 10), ``service`` (base URL of an Octopus of your own), and
    properties of librdkafka.

    Args:
        url: URL as above.
        config: Properties of librdkafka that override the defaults for Octopus.

    Raises:
        FabricURLError: The URL is invalid.
        ConfigurationError: There is no login, or a package is missing.
    """

    def __init__(self, url: str, config: Mapping[str, Any] | None = None) -> None:
        address = Address(url)
        login = Login(address.timeout, address.service, needs_login=False)
        query = urlencode({**address.others, "timeout": f"{address.timeout:g}"})
        needed = {"security.protocol": "SASL_SSL", "sasl.mechanism": "OAUTHBEARER", "oauth_cb": login.token}
        # No broker yet; without this the parser would look for one in the place of the namespace.
        base = url.partition("?")[0]
        options = parse(f"{base}?{query}", {"bootstrap.servers": "", **needed, **(config or {})})
        if not options.properties["bootstrap.servers"]:
            del options.properties["bootstrap.servers"]
        try_out(options)
        self._use(_Cluster(options._replace(url=url, prefix=address.namespace), login))


def open_url(url: str, run_dir: Path) -> OctopusFabric:  # noqa: ARG001 - signature of all transports
    """Open ``octopus://namespace``; the service is contacted later.

    Raises:
        FabricURLError: The URL is invalid.
        ConfigurationError: There is no login, or a package is missing.
    """
    return OctopusFabric(url)
