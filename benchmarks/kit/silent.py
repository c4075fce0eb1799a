"""A radio that sends nothing: what Parsl's monitoring costs before anything is sent anywhere."""

from __future__ import annotations

from typing import Any

from parsl.monitoring.radios.base import MonitoringRadioReceiver, MonitoringRadioSender, RadioConfig


class SilentRadio(RadioConfig):
    """Travels by reference, as radios do."""

    def create_receiver(self, *, run_dir: str, resource_msgs: Any) -> MonitoringRadioReceiver:
        """See `RadioConfig`."""
        del run_dir, resource_msgs
        return _Deaf()

    def create_sender(self) -> MonitoringRadioSender:
        """See `RadioConfig`."""
        return _Mute()


class _Deaf(MonitoringRadioReceiver):
    def shutdown(self) -> None:
        """Nothing was started."""


class _Mute(MonitoringRadioSender):
    def send(self, message: object) -> None:
        """Nothing."""
