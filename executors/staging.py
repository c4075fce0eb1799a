"""Which staging works over several places, and where files live."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from parsl.data_provider.files import File
from parsl.data_provider.ftp import FTPInTaskStaging, FTPSeparateTaskStaging
from parsl.data_provider.http import HTTPInTaskStaging, HTTPSeparateTaskStaging
from parsl.data_provider.staging import Staging
from parsl.executors.base import ParslExecutor

from diaspora_parsl.errors import ConfigurationError

_SEPARATE = (FTPSeparateTaskStaging, HTTPSeparateTaskStaging)


class RefusedStaging(Staging):
    """The last in line of a pool without a shared file system: says why a file cannot be staged."""

    def can_stage_in(self, file: File) -> bool:  # noqa: ARG002 - whatever came here
        """Everything that no other provider took."""
        return True

    def can_stage_out(self, file: File) -> bool:  # noqa: ARG002 - whatever came here
        """Everything that no other provider took."""
        return True

    def stage_in(self, dm: Any, executor: str, file: File, parent_fut: Future[Any] | None) -> Any:  # noqa: ARG002
        """Refuse it.

        Raises:
            ConfigurationError: always.
        """
        self._refuse(executor, file)

    def stage_out(self, dm: Any, executor: str, file: File, app_fu: Future[Any]) -> Any:  # noqa: ARG002
        """Refuse it.

        Raises:
            ConfigurationError: always.
        """
        self._refuse(executor, file)

    def _refuse(self, executor: str, file: File) -> None:
        raise ConfigurationError(
            f"Pool {executor!r} has no shared file system, and the endpoint that will run the task is not known yet: "
            f"{file.url} cannot be staged. Use http:// or ftp:// files, which each task fetches itself, pass the data "
            f"as an argument, or give the pool storage_access=[...] with a provider that stages inside the task."
        )


def storage_of_pool(
    members: Sequence[ParslExecutor], given: list[Staging] | None, *, shared_filesystem: bool
) -> list[Staging] | None:
    """The staging providers of a pool.

    The rule: what the pool was given; else what its members agree on; else Parsl's default. Without a shared file
    system only providers that work inside the task remain, and anything else is refused with a sentence.

    Raises:
        ConfigurationError: the members disagree, or a provider needs a task of its own where there is no shared file
            system (it could run at another endpoint than the task that needs the file).
    """
    chosen = given
    if chosen is None:
        own = [(m.label, access) for m in members if (access := getattr(m, "storage_access", None)) is not None]
        kinds = {tuple(type(provider).__qualname__ for provider in access) for _, access in own}
        if len(kinds) > 1:
            raise ConfigurationError(
                f"Endpoints {', '.join(label for label, _ in own)} have different storage_access. Files are staged for "
                f"the pool, before the endpoint is known: give ResilientPoolExecutor(storage_access=[...])."
            )
        chosen = list(own[0][1]) if own else None
    if shared_filesystem:
        return chosen
    if chosen is None:
        return [HTTPInTaskStaging(), FTPInTaskStaging(), RefusedStaging()]
    for provider in chosen:
        if isinstance(provider, _SEPARATE):
            raise ConfigurationError(
                f"{type(provider).__name__} stages in a task of its own, which may run at another endpoint than the "
                f"task that needs the file. Without a shared file system use "
                f"{type(provider).__name__.replace('SeparateTask', 'InTask')}."
            )
    return [*chosen, RefusedStaging()]


def working_dir_of_pool(members: Sequence[ParslExecutor], given: str | None) -> str | None:
    """The directory files are staged into: the pool's, else the one that all members that name one agree on.

    Raises:
        ConfigurationError: the members disagree.
    """
    if given is not None:
        return given
    own = {directory for m in members if (directory := getattr(m, "working_dir", None)) is not None}
    if len(own) > 1:
        raise ConfigurationError(
            f"Endpoints have different working_dir ({', '.join(sorted(own))}). Files are staged for the pool, before "
            f"the endpoint is known: give ResilientPoolExecutor(working_dir=...)."
        )
    return own.pop() if own else None
