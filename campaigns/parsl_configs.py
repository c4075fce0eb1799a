"""Parsl configurations: the user's own from a Python file, a pool on this machine or on Globus Compute endpoints."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import UUID

from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider

import diaspora_parsl
from diaspora_parsl.errors import ConfigurationError

if TYPE_CHECKING:
    from diaspora_parsl import GlobusEndpoint

_PARSL_DEFAULT: Final = "runinfo"


def load_config(path: Path) -> Config:
    """The Parsl configuration that a Python file holds, as ``config`` or as what ``fresh_config()`` returns.

    Raises:
        ConfigurationError: there is none; the message says what to write.
    """
    if not path.is_file():
        raise ConfigurationError(f"There is no file {path}. Write a Python file that sets `config = Config(...)`.")
    try:
        names = runpy.run_path(str(path), run_name="diaspora_parsl_config")
        config = names["fresh_config"]() if callable(names.get("fresh_config")) else names.get("config")
    except Exception as error:  # the user's own code, with the user's own errors
        raise ConfigurationError(f"{path} raised {type(error).__name__}: {error}") from error
    if not isinstance(config, Config):
        raise ConfigurationError(f"{path} has no `config` that is a parsl.config.Config, and no `fresh_config()`.")
    return config


def local_config(workers: int) -> Config:
    """A pool of one endpoint on this machine."""
    provider = LocalProvider(init_blocks=1, max_blocks=1, worker_init="export DIASPORA_PARSL_SITE=local")
    executor = HighThroughputExecutor(
        label="local", address="127.0.0.1", max_workers_per_node=workers, provider=provider
    )
    return Config(
        executors=[diaspora_parsl.ResilientPoolExecutor(label="pool", endpoints=[executor], fabric="embedded")]
    )


def globus_config(endpoints: Sequence[str], journal: Path | None = None) -> Config:
    """A pool of Globus Compute endpoints, for which there is a login: it is asked for here if need be.

    Args:
        endpoints: ``LABEL=UUID`` or ``LABEL:SITE=UUID``.
        journal: as of `GlobusEndpoint`.

    Raises:
        ConfigurationError: they are no endpoints, the SDK is not installed, or there is no login; the message says what
            to do.
    """
    found: dict[UUID, GlobusEndpoint] = {}
    for given in endpoints:
        name, equals, identity = given.rpartition("=")
        label, colon, site = name.partition(":")
        if not (equals and label and identity) or (colon and not site):
            raise ConfigurationError(f'--globus "{given}" is neither LABEL=UUID nor LABEL:SITE=UUID.')
        endpoint = diaspora_parsl.GlobusEndpoint(endpoint_id=identity, label=label, site=site or None, journal=journal)
        double = found.setdefault(UUID(identity), endpoint)
        if double is not endpoint:
            raise ConfigurationError(
                f"--globus: {double.label} and {label} are one endpoint, {identity}. Give each endpoint once."
            )
    pool = diaspora_parsl.ResilientPoolExecutor(label="pool", endpoints=list(found.values()), fabric="embedded")
    for endpoint in found.values():  # now, and not beneath the display of the progress
        endpoint.log_in()
    return Config(executors=[pool])


def settle_in(config: Config, folder: Path) -> Config:
    """Keep Parsl's own files in a folder, unless the configuration says where."""
    if config.run_dir == _PARSL_DEFAULT:
        config.run_dir = str(folder / "parsl")
    return config


def find_parsl_programs() -> None:
    """Make Parsl's programs findable when this command was called by its path, without activating its environment."""
    programs = str(Path(sys.executable).parent)
    known = os.environ.get("PATH", "")
    if programs not in known.split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([programs, *filter(None, [known])])
