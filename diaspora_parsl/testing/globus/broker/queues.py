"""Queues, consumers and unacknowledged deliveries, without I/O or a clock."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from msgspec import Struct

# Reply codes of AMQP 0-9-1, section 1.2 of its reference.
ACCESS_REFUSED: Final = 403
NOT_FOUND: Final = 404
RESOURCE_LOCKED: Final = 405
PRECONDITION_FAILED: Final = 406
NOT_ALLOWED: Final = 530
NOT_IMPLEMENTED: Final = 540

#: Predefined exchanges. The one with an empty name routes by queue name.
_FIXED_EXCHANGES: Final = ("", "amq.direct")


class RefusedError(Exception):
    """The broker refuses a request.

    Args:
        code: AMQP reply code.
        text: Reason.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text


class Message(Struct, frozen=True):
    """A published message."""

    header: bytes
    """Its encoded properties."""
    body: bytes
    exchange: str = ""
    routing_key: str = ""


class Item(Struct):
    """A message in a queue."""

    number: int
    """Position in the queue, kept when it is requeued."""
    message: Message
    born: float
    redelivered: bool = False


class Delivery(Struct, frozen=True):
    """An item sent to a client."""

    tag: int
    item: Item
    queue: Queue
    consumer: Consumer | None
    """None: the client polled with ``Basic.Get``."""


class Outlet(Protocol):
    """Receives the deliveries of one channel."""

    def has_room(self) -> bool:
        """Return whether another delivery may be written now."""

    def deliver(self, consumer_tag: str, delivery: Delivery) -> None:
        """Write a delivery; must not call back."""

    def cancelled(self, consumer_tag: str) -> None:
        """Notify the client that a deleted queue ended its consumer."""


class Queue:
    """One queue. Its consumers receive ready messages in turn, in the order of publication."""

    def __init__(self, name: str, *, owner: object | None = None, auto_delete: bool = False) -> None:
        self.name = name
        self.owner = owner
        self.auto_delete = auto_delete
        self.consumers: deque[Consumer] = deque()
        self.unacknowledged = 0
        self._ready: list[tuple[int, Item]] = []  # a heap: requeued items return to their position
        self._numbers = itertools.count()

    @property
    def ready(self) -> int:
        """Number of undelivered messages."""
        return len(self._ready)

    def put(self, message: Message, now: float) -> None:
        """Append a message and deliver ready messages."""
        number = next(self._numbers)
        heapq.heappush(self._ready, (number, Item(number=number, message=message, born=now)))
        self.pump()

    def take(self) -> Item | None:
        """Remove and return the oldest ready message, or None."""
        return heapq.heappop(self._ready)[1] if self._ready else None

    def put_back(self, item: Item) -> None:
        """Requeue a delivered message at its position."""
        item.redelivered = True
        heapq.heappush(self._ready, (item.number, item))

    def purge(self) -> int:
        """Drop all ready messages; return their number."""
        count = len(self._ready)
        self._ready.clear()
        return count

    def expire(self, born_before: float) -> int:
        """Drop ready messages from before ``born_before``; return their number."""
        kept = [entry for entry in self._ready if entry[1].born >= born_before]
        gone = len(self._ready) - len(kept)
        heapq.heapify(kept)
        self._ready = kept
        return gone

    def pump(self) -> None:
        """Deliver ready messages to consumers with room."""
        while self._ready and (consumer := self._next_consumer()) is not None:
            consumer.channel.hand(consumer, heapq.heappop(self._ready)[1])

    def _next_consumer(self) -> Consumer | None:
        for _ in range(len(self.consumers)):
            consumer = self.consumers[0]
            self.consumers.rotate(-1)
            if consumer.channel.has_room_for(consumer):
                return consumer
        return None


class Consumer(Struct, eq=False):
    """One subscription to one queue."""

    tag: str
    queue: Queue
    channel: Channel
    no_ack: bool
    exclusive: bool
    prefetch: int
    """Largest number of unacknowledged messages; 0: no limit."""
    held: int = 0


class Queues:
    """Every queue and exchange of one broker."""

    def __init__(self) -> None:
        self._queues: dict[str, Queue] = {}
        self._exchanges: dict[str, dict[str, list[str]]] = {name: {} for name in _FIXED_EXCHANGES}
        self._names = itertools.count(1)

    def __contains__(self, name: str) -> bool:
        return name in self._queues

    def __iter__(self) -> Iterator[Queue]:
        return iter(list(self._queues.values()))

    def find(self, name: str, client: object | None = None) -> Queue:
        """Return the queue of a name.

        Raises:
            RefusedError: The queue does not exist, or is exclusive to another client.
        """
        queue = self._queues.get(name)
        if queue is None:
            raise RefusedError(NOT_FOUND, f"NOT_FOUND - no queue '{name}' in vhost '/'")
        if queue.owner is not None and queue.owner is not client:
            raise RefusedError(RESOURCE_LOCKED, f"RESOURCE_LOCKED - queue '{name}' is exclusive to another connection")
        return queue

    def declare(
        self, name: str, client: object | None = None, *, exclusive: bool = False, auto_delete: bool = False
    ) -> Queue:
        """Return the queue of a name, created if missing; an empty name creates a new one."""
        name = name or f"amq.gen-{next(self._names)}"
        if name in self._queues:
            return self.find(name, client)
        queue = Queue(name, owner=client if exclusive else None, auto_delete=auto_delete)
        self._queues[name] = queue
        return queue

    def delete(self, queue: Queue) -> int:
        """Delete a queue; return the number of its ready messages."""
        self._queues.pop(queue.name, None)
        for bindings in self._exchanges.values():
            for key in [key for key, names in bindings.items() if queue.name in names]:
                _unbind(bindings, key, queue.name)
        for consumer in list(queue.consumers):
            consumer.channel.forget(consumer)
        return queue.purge()

    def declare_exchange(self, name: str, kind: str) -> None:
        """Create a direct exchange if it does not exist.

        Raises:
            RefusedError: Another type is requested.
        """
        if kind != "direct":
            raise RefusedError(NOT_IMPLEMENTED, f"NOT_IMPLEMENTED - exchange type '{kind}'")
        self._exchanges.setdefault(name, {})

    def delete_exchange(self, name: str) -> None:
        """Delete an exchange, if it exists.

        Raises:
            RefusedError: The exchange is predefined.
        """
        if name in _FIXED_EXCHANGES:
            raise RefusedError(ACCESS_REFUSED, f"ACCESS_REFUSED - exchange '{name}' cannot be deleted")
        self._exchanges.pop(name, None)

    def find_exchange(self, name: str) -> dict[str, list[str]]:
        """Return the bindings of an exchange: queue names by routing key.

        Raises:
            RefusedError: The exchange does not exist.
        """
        if name not in self._exchanges:
            raise RefusedError(NOT_FOUND, f"NOT_FOUND - no exchange '{name}' in vhost '/'")
        return self._exchanges[name]

    def bind(self, queue: Queue, exchange: str, key: str) -> None:
        """Bind a queue to an exchange with a routing key.

        Raises:
            RefusedError: The exchange does not exist, or is the default one.
        """
        names = self._bindable(exchange).setdefault(key, [])
        if queue.name not in names:
            names.append(queue.name)

    def unbind(self, queue: Queue, exchange: str, key: str) -> None:
        """Remove a binding, if it exists."""
        bindings = self._bindable(exchange)
        if queue.name in bindings.get(key, ()):
            _unbind(bindings, key, queue.name)

    def _bindable(self, exchange: str) -> dict[str, list[str]]:
        if not exchange:
            raise RefusedError(ACCESS_REFUSED, "ACCESS_REFUSED - operation not permitted on the default exchange")
        return self.find_exchange(exchange)

    def publish(self, message: Message, now: float) -> int:
        """Append a message to every queue bound to its exchange and key; return the number of queues.

        Raises:
            RefusedError: The exchange does not exist.
        """
        key = message.routing_key
        names = self.find_exchange(message.exchange).get(key, ()) if message.exchange else (key,)
        reached = [self._queues[name] for name in names if name in self._queues]
        for queue in reached:
            queue.put(message, now)
        return len(reached)

    def end(self, channels: Iterable[Channel], client: object | None = None) -> None:
        """End channels and the exclusive queues of a client, and only then redeliver their messages."""
        queues: dict[str, Queue] = {}
        for channel in list(channels):
            queues.update((queue.name, queue) for queue in channel.release())
        for queue in list(self._queues.values()):
            if client is not None and queue.owner is client:
                self.delete(queue)
        for queue in queues.values():
            queue.pump()


def _unbind(bindings: dict[str, list[str]], key: str, name: str) -> None:
    bindings[key].remove(name)
    if not bindings[key]:
        del bindings[key]


class Channel:
    """The state of one channel: its consumers and unacknowledged deliveries."""

    def __init__(self, queues: Queues, outlet: Outlet) -> None:
        self.consumers: dict[str, Consumer] = {}
        self.flowing = True
        self._queues = queues
        self._outlet = outlet
        self._unacknowledged: dict[int, Delivery] = {}  # in the order of the tags
        self._tags = itertools.count(1)
        self._prefetch = 0
        self._shared_prefetch = 0
        self._held = 0  # over all consumers

    def qos(self, count: int, *, shared: bool) -> None:
        """Limit unacknowledged messages per new consumer, or with ``shared`` per channel; 0: no limit."""
        if shared:
            self._shared_prefetch = count
            self.resume()
        else:
            self._prefetch = count

    def consume(self, queue: Queue, tag: str, *, no_ack: bool = False, exclusive: bool = False) -> None:
        """Begin a subscription; `pump` the queue afterwards.

        Raises:
            RefusedError: The tag is in use, or one of the consumers is exclusive.
        """
        if tag in self.consumers:
            raise RefusedError(NOT_ALLOWED, f"NOT_ALLOWED - attempt to reuse consumer tag '{tag}'")
        if queue.consumers and (exclusive or queue.consumers[0].exclusive):
            raise RefusedError(ACCESS_REFUSED, f"ACCESS_REFUSED - queue '{queue.name}' in exclusive use")
        consumer = Consumer(
            tag=tag, queue=queue, channel=self, no_ack=no_ack, exclusive=exclusive, prefetch=self._prefetch
        )
        self.consumers[tag] = consumer
        queue.consumers.append(consumer)

    def cancel(self, tag: str) -> None:
        """End a subscription; its deliveries can still be acknowledged."""
        consumer = self.consumers.pop(tag, None)
        if consumer is not None:
            self._leave(consumer)

    def forget(self, consumer: Consumer) -> None:
        """Remove the consumer of a deleted queue and notify the client."""
        del self.consumers[consumer.tag]
        consumer.queue.consumers.remove(consumer)
        self._outlet.cancelled(consumer.tag)

    def _leave(self, consumer: Consumer) -> None:
        queue = consumer.queue
        queue.consumers.remove(consumer)
        if queue.auto_delete and not queue.consumers:
            self._queues.delete(queue)

    def has_room_for(self, consumer: Consumer) -> bool:
        """Return whether a consumer has room for another message."""
        if not (self.flowing and self._outlet.has_room()):
            return False
        if consumer.no_ack:
            return True
        if consumer.prefetch and consumer.held >= consumer.prefetch:
            return False
        return not self._shared_prefetch or self._held < self._shared_prefetch

    def hand(self, consumer: Consumer, item: Item) -> None:
        """Deliver an item to a consumer of this channel."""
        delivery = Delivery(tag=next(self._tags), item=item, queue=consumer.queue, consumer=consumer)
        if not consumer.no_ack:
            consumer.held += 1
            self._held += 1
            self._keep(delivery)
        self._outlet.deliver(consumer.tag, delivery)

    def get(self, queue: Queue, *, no_ack: bool = False) -> Delivery | None:
        """Deliver the oldest ready message, or return None."""
        item = queue.take()
        if item is None:
            return None
        delivery = Delivery(tag=next(self._tags), item=item, queue=queue, consumer=None)
        if not no_ack:
            self._keep(delivery)
        return delivery

    def _keep(self, delivery: Delivery) -> None:
        self._unacknowledged[delivery.tag] = delivery
        delivery.queue.unacknowledged += 1

    def settle(self, tag: int, *, multiple: bool, requeue: bool) -> None:
        """Acknowledge, reject or requeue a delivery, or with ``multiple`` all up to it (0: all).

        Raises:
            RefusedError: The delivery tag is unknown.
        """
        if tag not in self._unacknowledged and not (multiple and tag == 0):
            raise RefusedError(PRECONDITION_FAILED, f"PRECONDITION_FAILED - unknown delivery tag {tag}")
        if not multiple:
            tags = [tag]
        else:  # the tags are in order
            tags = list(itertools.takewhile(lambda known: tag in (0, known) or known < tag, self._unacknowledged))
        for queue in self._settle(tags, requeue=requeue):
            queue.pump()
        if self._shared_prefetch:
            self.resume()

    def recover(self) -> None:
        """Requeue every unacknowledged delivery."""
        for queue in self._settle(list(self._unacknowledged), requeue=True):
            queue.pump()

    def _settle(self, tags: Iterable[int], *, requeue: bool) -> list[Queue]:
        touched: dict[Queue, None] = {}
        for tag in tags:
            delivery = self._unacknowledged.pop(tag)
            delivery.queue.unacknowledged -= 1
            touched[delivery.queue] = None
            if delivery.consumer is not None:
                delivery.consumer.held -= 1
                self._held -= 1
            if requeue:
                delivery.queue.put_back(delivery.item)
        return list(touched)

    def resume(self) -> None:
        """Deliver ready messages to the consumers of this channel once there is room again."""
        for consumer in list(self.consumers.values()):
            consumer.queue.pump()

    def release(self) -> list[Queue]:
        """End every subscription and requeue its deliveries; return the queues to `pump`."""
        for tag in list(self.consumers):
            self.cancel(tag)
        return self._settle(list(self._unacknowledged), requeue=True)
