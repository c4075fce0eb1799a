from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from diaspora_parsl import ResilientPoolExecutor
from diaspora_parsl.campaigns.parsl_configs import globus_config
from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.executors.globus import sdk

if TYPE_CHECKING:
    from pathlib import Path

ONE = "4b116d3c-1703-4f8f-9f6f-39921e5864df"
OTHER = "00000000-0000-0000-0000-000000000001"


@pytest.fixture(autouse=True)
def _nobody_is_known() -> None:
    sdk.log_in.cache_clear()


def test_globus_endpoints_become_a_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk, "default_client", lambda: SimpleNamespace(app=None))
    (pool,) = globus_config([f"alpha={ONE}", f"beta:uchicago={OTHER}"], tmp_path / "journal").executors
    assert isinstance(pool, ResilientPoolExecutor)
    assert [(endpoint.label, endpoint.site) for endpoint in pool.endpoints] == [
        ("alpha", "alpha"),
        ("beta", "uchicago"),
    ]
    assert (tmp_path / "journal").exists()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["alpha"], "neither LABEL=UUID nor"),
        ([f"={ONE}"], "neither LABEL=UUID nor"),
        ([f"alpha:={ONE}"], "neither LABEL=UUID nor"),
        (["alpha=4711"], "'4711' is no UUID"),
        ([f"al pha={ONE}"], "cannot be labelled 'al pha'"),
        ([f"alpha={ONE}", f"alpha={OTHER}"], "labelled 'alpha'"),
        ([f"alpha={ONE}", f"beta={ONE.upper()}"], "alpha and beta are one endpoint"),
    ],
)
def test_what_is_no_globus_endpoint_is_a_sentence(given: list[str], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        globus_config(given)


def test_without_the_sdk_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("executor", "sdk"):
        monkeypatch.delitem(sys.modules, f"diaspora_parsl.executors.globus.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "globus_compute_sdk", None)
    with pytest.raises(ConfigurationError, match=r"pip install \"diaspora-parsl\[globus\]\""):
        globus_config([f"alpha={ONE}"])


def test_nobody_starts_without_a_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GLOBUS_COMPUTE_CLIENT_ID", "GLOBUS_COMPUTE_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GLOBUS_COMPUTE_USER_DIR", str(tmp_path))
    with pytest.raises(ConfigurationError, match="Log in once"):
        globus_config([f"alpha={ONE}"])
