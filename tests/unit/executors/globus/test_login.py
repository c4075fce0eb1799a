"""Who starts a pool is asked for a login, in that thread, or told how to log in."""

from __future__ import annotations

import io
import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from globus_sdk import GlobusConnectionError, GlobusError, UserApp

from diaspora_parsl import GlobusEndpoint, ResilientPoolExecutor
from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.executors.globus import sdk

if TYPE_CHECKING:
    from pathlib import Path


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class App:
    """Of a service account whose login ends in this way."""

    def __init__(self, *, end: Exception | None = None, has_login: bool = False) -> None:
        self.end = end
        self.has_login = has_login
        self.said: list[str] = []

    def login_required(self) -> bool:
        return not self.has_login

    def login(self) -> None:
        self.said.append("login")
        if self.end is not None:
            raise self.end

    def close(self) -> None:
        self.said.append("close")


@pytest.fixture(autouse=True)
def _nobody_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GLOBUS_COMPUTE_CLIENT_ID", "GLOBUS_COMPUTE_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GLOBUS_COMPUTE_USER_DIR", str(tmp_path))
    sdk.log_in.cache_clear()


def endpoint(**options: Any) -> GlobusEndpoint:
    return GlobusEndpoint(endpoint_id=uuid4(), label="alpha", **options)


def meets(monkeypatch: pytest.MonkeyPatch, app: App) -> App:
    monkeypatch.setattr(sdk, "default_client", lambda: SimpleNamespace(app=app))
    return app


def test_a_pool_does_not_start_without_a_login_and_a_terminal(tmp_path: Path) -> None:
    pool = ResilientPoolExecutor(endpoints=[endpoint()], fabric="memory://login")
    pool.run_dir = str(tmp_path / "run")
    with pytest.raises(ConfigurationError, match="Log in once, at a terminal"):
        pool.start()
    assert not (tmp_path / "run").exists()


def test_at_a_terminal_the_login_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def login(app: UserApp) -> None:
        asked.append(app)

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr(UserApp, "login", login)
    endpoint().log_in()
    assert len(asked) == 1


def test_half_of_a_service_account_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOBUS_COMPUTE_CLIENT_SECRET", "secret")
    with pytest.raises(ConfigurationError, match="Both GLOBUS_COMPUTE_CLIENT_ID and GLOBUS_COMPUTE_CLIENT_SECRET"):
        endpoint().log_in()


@pytest.mark.parametrize("has_login", [True, False])
def test_a_service_account_logs_in_by_itself_if_need_be(monkeypatch: pytest.MonkeyPatch, *, has_login: bool) -> None:
    app = meets(monkeypatch, App(has_login=has_login))
    for _ in range(3):  # endpoints
        endpoint().log_in()
    assert app.said == (["close"] if has_login else ["login", "close"])


def test_a_login_that_is_refused_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    meets(monkeypatch, App(end=GlobusError("invalid_client")))
    with pytest.raises(ConfigurationError, match="Globus refused the login: invalid_client"):
        endpoint().log_in()


def test_a_service_that_cannot_be_reached_is_no_reason_to_stop(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    meets(monkeypatch, App(end=GlobusConnectionError("no route", OSError())))
    with caplog.at_level(logging.WARNING):
        endpoint().log_in()
    assert "cannot be reached now" in caplog.text


def test_who_makes_clients_logs_them_in() -> None:
    endpoint(client_factory=object).log_in()
