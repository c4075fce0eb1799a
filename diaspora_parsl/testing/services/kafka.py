"""Kafka on this host: a real broker, or the mock cluster of librdkafka without Java."""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote

from diaspora_parsl.errors import ConfigurationError

#: Environment variable with the folder of the jars; default `DEFAULT_JARS`.
JARS_VARIABLE: Final = "DIASPORA_PARSL_KAFKA_JARS"
#: Folder into which ``.ci/kafka`` installs the jars.
DEFAULT_JARS: Final = Path("~/.cache/diaspora-parsl/kafka")
_START_LIMIT: Final = 60.0
_ROUND: Final = 0.02
_JAVA: Final = ("-Xmx256m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_CONF: Final = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAIN://127.0.0.1:{plain},SECURE://127.0.0.1:{secure},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAIN://127.0.0.1:{plain},SECURE://127.0.0.1:{secure}
listener.security.protocol.map=PLAIN:PLAINTEXT,SECURE:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAIN
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,OAUTHBEARER
listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
user_{user}="{password}";
listener.name.secure.scram-sha-256.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.secure.oauthbearer.sasl.jaas.config=\
org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";
ssl.keystore.type=PEM
ssl.keystore.location={folder}/server.pem
log.dirs={folder}/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
num.network.threads=1
num.io.threads=2
background.threads=1
log.cleaner.enable=false
broker.session.timeout.ms=1000
broker.heartbeat.interval.ms=250
initial.broker.registration.timeout.ms=60000
auto.create.topics.enable=true
"""
_LOGGING: Final = """\
rootLogger.level=WARN
rootLogger.appenderRef.console.ref=console
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d %p %c: %m%n
"""


class _Child:
    """A program that ends with this process, even after SIGKILL."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        with log.open("ab") as file:
            self.process = subprocess.Popen(  # noqa: S603 - our own command line
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
        # Its standard input closes with this process.
        self._watcher = subprocess.Popen(  # noqa: S603 - the same
            ["/bin/sh", "-c", 'read _; kill -9 "$1"', "sh", str(self.process.pid)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        self._watcher.kill()
        self._watcher.communicate()
        self.process.kill()
        self.process.wait(10)


def _jars() -> Path:
    return Path(os.environ.get(JARS_VARIABLE) or DEFAULT_JARS).expanduser()


class KafkaBroker:
    """One broker in KRaft mode, with a plain listener and one with TLS and SASL (PLAIN, SCRAM-SHA-256, OAUTHBEARER).

    Its OAUTHBEARER check is Kafka's development check, which accepts unsigned tokens.

    Example:
        >>> with KafkaBroker(tmp_path) as broker:  # doctest: +SKIP
        ...     fabric = open_fabric(f"kafka://{broker.address}/test")

    Args:
        folder: Empty folder for its data, not deleted.

    Raises:
        ConfigurationError: No broker can run on this host (see `why_not`).
    """

    is_real = True

    def __init__(self, folder: Path) -> None:
        if reason := self.why_not():
            raise ConfigurationError(f"KafkaBroker cannot start: {reason}")
        self.user, self.password = "alice", secrets.token_hex(12)
        self._folder = folder
        self._plain, self._secure, self._controller = _free_ports(3)
        self._child: _Child | None = None

    @staticmethod
    def why_not() -> str | None:
        """Return why no broker can run on this host, or None if it can."""
        missing = [program for program in ("java", "openssl") if shutil.which(program) is None]
        if missing:
            return f"{' and '.join(missing)} not installed; on Debian: apt-get install openjdk-17-jre-headless openssl"
        if not any(_jars().glob("kafka-server-*.jar")):
            return f"no jars of Kafka in {_jars()}: run .ci/kafka, or set {JARS_VARIABLE}"
        return None

    @property
    def address(self) -> str:
        """Host and port without TLS and login."""
        return f"127.0.0.1:{self._plain}"

    @property
    def secure_address(self) -> str:
        """Host and port with TLS and login."""
        return f"127.0.0.1:{self._secure}"

    @property
    def certificate(self) -> Path:
        """PEM file of the broker's self-signed certificate."""
        return self._folder / "ca.pem"

    def secure_url(self, prefix: str, mechanism: str = "PLAIN") -> str:
        """Return the URL of a fabric over TLS with user and password."""
        options = f"sasl.mechanism={mechanism}&ssl.ca.location={quote(str(self.certificate))}"
        return f"kafka://{self.user}:{self.password}@{self.secure_address}/{prefix}?{options}"

    @property
    def pid(self) -> int:
        """Process id of the broker."""
        if self._child is None:
            raise RuntimeError("the broker does not run")
        return self._child.process.pid

    def __enter__(self) -> Self:
        try:
            self._write()
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self) -> None:
        ports = {"plain": self._plain, "secure": self._secure, "controller": self._controller}
        account = {"user": self.user, "password": self.password, "folder": self._folder}
        conf = self._folder / "server.properties"
        conf.touch(mode=0o600)
        conf.write_text(_CONF.format(**ports, **account), encoding="utf-8")
        (self._folder / "log4j2.properties").write_text(_LOGGING, encoding="utf-8")
        key, certificate = self._folder / "key.pem", self.certificate
        self._run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
                  "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate))  # fmt: skip
        store = self._folder / "server.pem"
        store.touch(mode=0o600)
        store.write_bytes(key.read_bytes() + certificate.read_bytes())
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        scram = f"SCRAM-SHA-256=[name={self.user},password={self.password}]"
        self._run(*self._java("kafka.tools.StorageTool"), "format", "-t", cluster, "-c", str(conf), "-S", scram)

    def _java(self, main: str) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={self._folder}/log4j2.properties"
        return ["java", "-cp", f"{_jars()}/*", *_JAVA, logging, main]

    def _run(self, *command: str) -> None:
        done = subprocess.run(  # noqa: S603 - our own command line
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_START_LIMIT, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"{command[0]} failed: {done.stdout[-500:]} {done.stderr[-500:]}")

    def start(self) -> None:
        """Start the broker with its ports and data, and wait until it accepts connections.

        Raises:
            RuntimeError: The broker does not start within a minute.
        """
        log = self._folder / "log.txt"
        self._child = _Child([*self._java("kafka.Kafka"), str(self._folder / "server.properties")], log)
        for port in (self._plain, self._secure):
            _until_open(self._child, port, log)

    def kill(self) -> None:
        """Send SIGKILL to the broker; `start` restarts it."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    close = kill


class MockBroker:
    """The mock cluster of librdkafka in its own process: no Java, TLS or durable data; writes create topics."""

    is_real = False

    def __init__(self, folder: Path) -> None:
        self._log = folder / "mock.txt"
        self._child: _Child | None = None
        self.address = ""

    def __enter__(self) -> Self:
        self._child = _Child([sys.executable, "-c", _MOCK], self._log)
        end = time.monotonic() + _START_LIMIT
        while not self.address and time.monotonic() < end and self._child.runs:
            time.sleep(_ROUND)
            self.address, newline, _ = self._log.read_text().partition("\n")
            self.address = self.address if newline else ""
        if not self.address:
            self.close()
            raise RuntimeError(f"no mock cluster: {self._log.read_text()[-500:]}")
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Process id of the mock cluster."""
        if self._child is None:
            raise RuntimeError("the mock cluster does not run")
        return self._child.process.pid

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.kill()
            self._child = None


_MOCK: Final = """\
import threading
from confluent_kafka import Producer
cluster = Producer({"bootstrap.servers": "127.0.0.1:1", "test.mock.num.brokers": 1, "log_level": 0})
print(*(f"{b.host}:{b.port}" for b in cluster.list_topics(timeout=10).brokers.values()), flush=True)
threading.Event().wait()
"""


def _free_ports(count: int) -> list[int]:
    """Return free ports below the ephemeral range.

    A client that reconnects while the broker is down may get an ephemeral port equal to its target. It would then be
    connected to itself and occupy the port of the broker.
    """
    found: list[int] = []
    while len(found) < count:
        port = 20_000 + secrets.randbelow(12_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            found += [] if port in found else [port]
    return found


def _until_open(child: _Child, port: int, log: Path) -> None:
    end = time.monotonic() + _START_LIMIT
    while time.monotonic() < end and child.runs:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(_ROUND)
    raise RuntimeError(f"the broker does not come up: {log.read_text(encoding='utf-8', errors='replace')[-1000:]}")
