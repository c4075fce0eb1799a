"""Two sites and a cloud, joined by bridges: pools tell a line that is cut from an endpoint that dies."""

from __future__ import annotations

import contextlib
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from diaspora_parsl import Fabric, open_fabric
from diaspora_parsl import events as ev
from diaspora_parsl.fabric.bridge.bridge import Bridge
from diaspora_parsl.fabric.bridge.config import BridgeConfig, FabricPlace, LinkConfig
from diaspora_parsl.testing.local_sites import LocalSite
from diaspora_parsl.testing.services.tcp_proxy import Wan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.conftest import PoolOf

SITES = ("anl", "uc")
#: What says something against an endpoint.
BAD = ev.EndpointSuspect | ev.EndpointDown | ev.EndpointReviving | ev.TaskRerouted
STATES = (ev.TOPIC_TASK, ev.TOPIC_ENDPOINT)


class Tree:
    """A fabric at each site and one in the cloud; a bridge at each site, and its line to the cloud."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.fabrics: dict[str, Fabric] = {}
        for site in (*SITES, "cloud"):
            opened = open_fabric("embedded", folder / f"fabric-{site}")
            self.fabrics[site] = stack.enter_context(contextlib.closing(opened))
        self.lines: dict[str, Wan] = {}
        self.bridges: dict[str, Bridge] = {}
        url = self.fabrics["cloud"].url
        for site in SITES:
            self.lines[site] = stack.enter_context(Wan.to(url))
            config = BridgeConfig(
                home=site,
                state=folder / f"bridge-{site}",
                fabrics={
                    site: FabricPlace(url=self.fabrics[site].url),
                    "cloud": FabricPlace(url=self.lines[site].url(url)),
                },
                links=(
                    LinkConfig(from_site=site, to_site="cloud", sample_seconds=0.0),
                    LinkConfig(from_site="cloud", to_site=site, sample_seconds=0.0),
                ),
            )
            self.bridges[site] = stack.enter_context(Bridge(config))

    def events(self, site: str, topic: str) -> list[ev.Event]:
        """Everything that a fabric has, without doubles, in order."""
        reader = self.fabrics[site].subscribe((topic,), "earliest")
        found: dict[tuple[str, str], ev.Event] = {}
        try:
            while batch := reader.read(0.05):
                for event in batch:
                    found.setdefault((event.source, event.id), event)
        finally:
            reader.close()
        return list(found.values())

    def born(self, site: str, topic: str, *, at: str) -> list[str]:
        """Ids of what was told at one site and is known at another, in order."""
        return [
            f"{event.source} {event.id}"
            for event in self.events(at, topic)
            if (event.originsite == site if event.hops else at == site) and "/bridge/" not in event.source
        ]

    def blamed(self, site: str) -> list[ev.Payload]:
        """What the pool at a site told against endpoints."""
        published = [event.payload() for topic in STATES for event in self.events(site, topic) if not event.hops]
        return [payload for payload in published if isinstance(payload, BAD)]

    def status(self, site: str, endpoint: str) -> ev.EndpointStatus:
        """What the pool at a site said last of an endpoint."""
        published = [event.payload() for event in self.events(site, ev.TOPIC_RESOURCE) if not event.hops]
        return [one for one in published if isinstance(one, ev.EndpointStatus) and one.endpoint == endpoint][-1]


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    with ExitStack() as stack:
        yield Tree(tmp_path, stack)


@pytest.mark.serial
def test_a_cut_line_is_told_from_a_dead_endpoint(pool_of: PoolOf, tree: Tree) -> None:
    def steady(seconds: float) -> None:
        """Work at both sites, that leaves the far endpoint of the first alone: a result would speak for it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for run, tags in ((anl, ["here"]), (uc, [])):
                run.results(run.tasks(2, 0.1, **({"tags": tags} if tags else {})))

    def far_says(word: str) -> bool:
        return word in tree.status("anl", "beta").reason

    with (
        LocalSite("alpha", site="anl", tags=frozenset({"here"})) as alpha,
        LocalSite("beta", site="uc") as far,
        LocalSite("beta", site="uc", node_agent=True) as beta,
        pool_of(alpha, far, fabric=tree.fabrics["anl"].url) as anl,
        pool_of(beta, fabric=tree.fabrics["uc"].url, beside="-uc") as uc,
    ):
        anl.warm_up("alpha", "beta")
        uc.warm_up("beta")
        anl.until(lambda: any(isinstance(event.payload(), ev.NodeHeartbeat) and event.hops
                              for event in tree.events("anl", ev.TOPIC_RESOURCE)))  # fmt: skip

        tree.lines["uc"].cut("drop")
        steady(7.0)
        anl.until(lambda: far_says("no event arrives from uc, whose link may be cut"))
        assert tree.status("anl", "beta").state == "up"
        assert not tree.bridges["uc"].stats()[0].is_up
        assert tree.bridges["anl"].stats()[0].is_up
        anl.results(anl.tasks(8, 0.1))
        tree.lines["uc"].mend()
        anl.until(lambda: not far_says("no word"))
        steady(1.0)
        assert tree.blamed("anl") == tree.blamed("uc") == []

        tree.lines["anl"].cut("refuse")
        steady(1.0)
        tree.lines["anl"].mend()

        beta.freeze(sparing_manager=True)
        anl.until(lambda: any(isinstance(payload, ev.EndpointSuspect) for payload in tree.blamed("anl")))
        assert {payload.endpoint for payload in tree.blamed("anl") if isinstance(payload, BAD)} == {"beta"}
        beta.thaw()
        anl.until(lambda: tree.status("anl", "beta").state == "up")

    anl.until(lambda: all(bridge.stats()[0].waiting == 0 for bridge in tree.bridges.values()))
    for site, other in (SITES, SITES[::-1]):
        for topic in STATES:
            published = tree.born(site, topic, at=site)
            assert published
            for place in ("cloud", other):
                anl.until(lambda: tree.born(site, topic, at=place) == published, 20.0, f"{topic} of {site} at {place}")  # noqa: B023
