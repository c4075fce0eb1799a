"""The broker's queues under events in any order: nothing unacknowledged is lost, nothing acknowledged comes again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from diaspora_parsl.testing.globus.broker.queues import (
    Channel,
    Consumer,
    Delivery,
    Message,
    Queue,
    Queues,
    RefusedError,
)

NAMES = ("one", "two")
pick = st.integers(0, 1 << 16)
#: Of the channels of both clients; the first one sees most of it.
which_channel = st.sampled_from((0, 0, 0, 0, 1, 2, 3))


class Book:
    """The model of one queue: the place of each message, numbered in the order of publication."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.published = 0
        self.ready: set[int] = set()
        self.out: dict[int, tuple[Channel, int]] = {}
        self.holders: dict[int, Consumer | None] = {}
        self.seen: set[int] = set()

    def publish(self) -> Message:
        self.ready.add(self.published)
        self.published += 1
        return Message(header=b"", body=str(self.published - 1).encode(), routing_key=self.queue.name)

    def hand(self, channel: Channel, delivery: Delivery, *, no_ack: bool) -> None:
        number = int(delivery.item.message.body)
        assert number == min(self.ready)  # so nothing is handed out that was settled, and nothing overtakes
        assert delivery.item.redelivered == (number in self.seen)
        self.ready.remove(number)
        self.seen.add(number)
        if not no_ack:
            self.out[number] = (channel, delivery.tag)
            self.holders[number] = delivery.consumer


class Client:
    """One connection with two channels; reads at once or not at all."""

    def __init__(self, machine: BrokerMachine) -> None:
        self.machine = machine
        self.reads = True
        self.channels = [Channel(machine.queues, self) for _ in range(2)]
        self.cancelled_tags: list[str] = []

    def has_room(self) -> bool:
        return self.reads

    def deliver(self, consumer_tag: str, delivery: Delivery) -> None:
        consumer = delivery.consumer
        assert consumer is not None
        assert (consumer.tag, consumer.queue) == (consumer_tag, delivery.queue)
        assert self.machine.takes(consumer)
        self.machine.books[delivery.queue].hand(consumer.channel, delivery, no_ack=consumer.no_ack)

    def cancelled(self, consumer_tag: str) -> None:
        self.cancelled_tags.append(consumer_tag)


class BrokerMachine(RuleBasedStateMachine):
    """Clients come, consume, settle, stop reading and vanish; a second account is kept of every message."""

    def __init__(self) -> None:
        super().__init__()
        self.queues = Queues()
        self.books: dict[Queue, Book] = {}
        for name in NAMES:
            self.declare(name)
        self.clients = [Client(self) for _ in range(2)]
        self.shared: dict[Channel, int] = {}
        self.now = 0.0
        self.tags = 0

    def declare(self, name: str) -> None:
        queue = self.queues.declare(name)
        self.books.setdefault(queue, Book(queue))

    def book(self, name: str) -> Book:
        return self.books[self.queues.find(name)]

    def channel(self, choice: int) -> Channel:
        return self.clients[choice % 2].channels[choice // 2 % 2]

    def consumers(self) -> list[Consumer]:
        return [consumer for queue in self.queues for consumer in queue.consumers]

    def open_tags(self, channel: Channel) -> list[int]:
        return sorted(tag for book in self.books.values() for owner, tag in book.out.values() if owner is channel)

    def takes(self, consumer: Consumer) -> bool:
        """Whether a consumer may and must take one more message, by this account."""
        channel = consumer.channel
        reads = any(client.reads for client in self.clients if channel in client.channels)
        if not (reads and channel.flowing) or consumer.no_ack:
            return reads and channel.flowing
        holders = [book.holders[number] for book in self.books.values() for number in book.out]
        own = sum(holder is consumer for holder in holders)
        together = sum(holder is not None and holder.channel is channel for holder in holders)
        limit = self.shared.get(channel, 0)
        return (not consumer.prefetch or own < consumer.prefetch) and (not limit or together < limit)

    def let_go(self, channels: list[Channel], tags: list[int] | None = None, *, back: bool) -> None:
        """Record that deliveries are settled or returned, before the queues are."""
        for book in self.books.values():
            for number, (channel, tag) in list(book.out.items()):
                if channel in channels and (tags is None or tag in tags):
                    del book.out[number]
                    if back:
                        book.ready.add(number)

    # --- what may happen ------------------------------------------------------------------------------------------

    @rule(name=st.sampled_from(NAMES), count=st.integers(1, 4))
    def publish(self, name: str, count: int) -> None:
        for _ in range(count):
            assert self.queues.publish(self.book(name).publish(), self.now) == 1

    @rule(
        choice=which_channel,
        name=st.sampled_from(NAMES),
        prefetch=st.integers(0, 3),
        no_ack=st.sampled_from([False, False, True]),
    )
    def consume(self, choice: int, name: str, prefetch: int, *, no_ack: bool) -> None:
        self.tags += 1
        channel, queue = self.channel(choice), self.queues.find(name)
        channel.qos(prefetch, shared=False)
        channel.consume(queue, str(self.tags), no_ack=no_ack)
        queue.pump()

    @rule(choice=which_channel, count=st.integers(0, 4))
    def share_prefetch(self, choice: int, count: int) -> None:
        self.shared[self.channel(choice)] = count
        self.channel(choice).qos(count, shared=True)

    @precondition(lambda self: self.consumers())
    @rule(choice=pick)
    def cancel(self, choice: int) -> None:
        consumers = self.consumers()
        consumer = consumers[choice % len(consumers)]
        consumer.channel.cancel(consumer.tag)
        consumer.channel.cancel(consumer.tag)

    @rule(choice=which_channel, name=st.sampled_from(NAMES), no_ack=st.booleans())
    def get(self, choice: int, name: str, *, no_ack: bool) -> None:
        channel, book = self.channel(choice), self.book(name)
        delivery = channel.get(book.queue, no_ack=no_ack)
        assert (delivery is None) == (not book.ready)
        if delivery is not None:
            book.hand(channel, delivery, no_ack=no_ack)

    @rule(choice=which_channel, which=pick, multiple=st.booleans(), requeue=st.booleans())
    def settle(self, choice: int, which: int, *, multiple: bool, requeue: bool) -> None:
        channel = self.channel(choice)
        tags = self.open_tags(channel)
        if not tags:
            with pytest.raises(RefusedError):
                channel.settle(1 + which, multiple=multiple, requeue=requeue)
            return
        tag = tags[which % len(tags)]
        everything = multiple and which % 5 == 0
        settled = [known for known in tags if known == tag or (multiple and (known < tag or everything))]
        self.let_go([channel], settled, back=requeue)
        channel.settle(0 if everything else tag, multiple=multiple, requeue=requeue)

    @rule(choice=which_channel)
    def recover(self, choice: int) -> None:
        self.let_go([self.channel(choice)], back=True)
        self.channel(choice).recover()

    @rule(choice=which_channel, reads=st.booleans())
    def read_or_not(self, choice: int, *, reads: bool) -> None:
        client = self.clients[choice % 2]
        client.reads = reads
        for channel in client.channels:
            channel.resume()

    @rule(choice=which_channel, flowing=st.booleans())
    def flow(self, choice: int, *, flowing: bool) -> None:
        self.channel(choice).flowing = flowing
        self.channel(choice).resume()

    @rule(choice=which_channel)
    def close_channel(self, choice: int) -> None:
        channel = self.channel(choice)
        self.let_go([channel], back=True)
        self.queues.end([channel])
        client = self.clients[choice % 2]
        client.channels[choice // 2 % 2] = Channel(self.queues, client)

    @rule(choice=which_channel)
    def vanish(self, choice: int) -> None:
        client = self.clients[choice % 2]
        client.reads = False
        self.let_go(client.channels, back=True)
        self.queues.end(client.channels, client)
        self.clients[choice % 2] = Client(self)

    @rule(name=st.sampled_from(NAMES))
    def purge(self, name: str) -> None:
        book = self.book(name)
        assert book.queue.purge() == len(book.ready)
        book.ready.clear()

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        book = self.book(name)
        tags = {consumer.tag for consumer in book.queue.consumers}
        count = len(book.ready)
        book.ready.clear()
        assert self.queues.delete(book.queue) == count
        assert tags <= {tag for client in self.clients for tag in client.cancelled_tags}
        with pytest.raises(RefusedError):
            self.queues.find(name)
        self.declare(name)

    @rule(seconds=st.floats(0.1, 10.0))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(name=st.sampled_from(NAMES), age=st.floats(0.0, 20.0))
    def expire(self, name: str, age: float) -> None:
        book = self.book(name)
        before = len(book.ready)
        gone = book.queue.expire(self.now - age)
        # Published in order, so that the oldest numbers are gone.
        book.ready = set(sorted(book.ready)[gone:])
        assert len(book.ready) == before - gone

    # --- what is always true --------------------------------------------------------------------------------------

    @invariant()
    def the_counts_agree(self) -> None:
        for queue in self.queues:
            book = self.books[queue]
            assert (queue.ready, queue.unacknowledged) == (len(book.ready), len(book.out))

    @invariant()
    def nothing_waits_that_somebody_would_take(self) -> None:
        for queue in self.queues:
            if queue.ready:
                assert not any(self.takes(consumer) for consumer in queue.consumers)

    def teardown(self) -> None:
        """Everything that was neither settled nor forgotten is still there, in order."""
        channels = [channel for client in self.clients for channel in client.channels]
        for client in self.clients:
            client.reads = False
        self.let_go(channels, back=True)
        self.queues.end(channels)
        last = Client(self)
        for name in NAMES:
            book = self.book(name)
            expected = sorted(book.ready)
            found: list[Any] = []
            while (delivery := last.channels[0].get(book.queue)) is not None:
                found.append(int(delivery.item.message.body))
            assert found == expected


TestBrokerMachine = BrokerMachine.TestCase
TestBrokerMachine.settings = settings(
    max_examples=300,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestBrokerMachine.pytestmark = [pytest.mark.timeout(600)]  # type: ignore[attr-defined]
