"""One channel of an AMQP connection: runs its methods on the queues and assembles messages."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Final, Protocol

from pika import spec

from diaspora_parsl.testing.globus.broker.queues import (
    NOT_IMPLEMENTED,
    PRECONDITION_FAILED,
    Channel,
    Delivery,
    Message,
    Queue,
    Queues,
    RefusedError,
)

UNEXPECTED_FRAME: Final = 505
_NO_ROUTE: Final = 312


class Wire(Protocol):
    """The connection that a channel belongs to."""

    def send(self, number: int, method: Any) -> None:
        """Write a method to a channel."""

    def send_message(self, number: int, method: Any, message: Message) -> None:
        """Write a method with its message to a channel."""

    def has_room(self) -> bool:
        """Return whether another delivery may be written now."""

    def now(self) -> float:
        """Return the time of the loop in seconds."""


class AmqpChannel:
    """Runs the methods of one channel; an `Outlet` of the queues.

    Args:
        number: Number of the channel.
        wire: Connection of the channel.
        queues: Queues of the broker.
    """

    def __init__(self, number: int, wire: Wire, queues: Queues) -> None:
        self.number = number
        self.closing = False
        """Whether the broker closed the channel and waits for the client's ``CloseOk``."""
        self.state = Channel(queues, self)
        self._wire = wire
        self._queues = queues
        self._last_declared = ""
        self._confirms: itertools.count[int] | None = None
        self._tags = itertools.count(1)
        # The incoming message: its method, header, missing bytes and parts.
        self._publish: Any = None
        self._header: bytes | None = None
        self._missing = 0
        self._parts: list[bytes] = []
        self._methods: dict[type[Any], Callable[[Any], None]] = {
            spec.Channel.Flow: self._flow,
            spec.Exchange.Declare: self._exchange_declare,
            spec.Exchange.Delete: self._exchange_delete,
            spec.Queue.Declare: self._queue_declare,
            spec.Queue.Bind: self._queue_bind,
            spec.Queue.Unbind: self._queue_unbind,
            spec.Queue.Purge: self._queue_purge,
            spec.Queue.Delete: self._queue_delete,
            spec.Basic.Qos: self._qos,
            spec.Basic.Consume: self._consume,
            spec.Basic.Cancel: self._cancel,
            spec.Basic.Publish: self._begin_publish,
            spec.Basic.Get: self._get,
            spec.Basic.Ack: self._ack,
            spec.Basic.Nack: self._nack,
            spec.Basic.Reject: self._reject,
            spec.Basic.Recover: self._recover,
            spec.Confirm.Select: self._confirm_select,
        }

    # --- called by the queues -------------------------------------------------------------------------------------

    def has_room(self) -> bool:
        """Return whether another delivery may be written now."""
        return self._wire.has_room()

    def deliver(self, consumer_tag: str, delivery: Delivery) -> None:
        """Write a delivery."""
        message = delivery.item.message
        method = spec.Basic.Deliver(
            consumer_tag=consumer_tag,
            delivery_tag=delivery.tag,
            redelivered=delivery.item.redelivered,
            exchange=message.exchange,
            routing_key=message.routing_key,
        )
        self._wire.send_message(self.number, method, message)

    def cancelled(self, consumer_tag: str) -> None:
        """Notify the client that a deleted queue ended its consumer."""
        self._reply(spec.Basic.Cancel(consumer_tag=consumer_tag, nowait=True))

    # --- called by the connection ---------------------------------------------------------------------------------

    def handle(self, method: Any) -> None:
        """Run a method.

        Raises:
            RefusedError: The method fails; its code determines whether to close the channel or the connection.
        """
        if self._publish is not None:
            raise RefusedError(UNEXPECTED_FRAME, "UNEXPECTED_FRAME - a method inside a message")
        known = self._methods.get(type(method))
        if known is None:
            raise RefusedError(NOT_IMPLEMENTED, f"NOT_IMPLEMENTED - {method.NAME}")
        known(method)

    def take_header(self, header: bytes, size: int) -> None:
        """Begin a message of ``size`` bytes.

        Raises:
            RefusedError: No method announced a message.
        """
        if self._publish is None or self._header is not None:
            raise RefusedError(UNEXPECTED_FRAME, "UNEXPECTED_FRAME - a header that no method announced")
        self._header, self._missing = header, size
        if not size:
            self._end_publish(header)

    def take_body(self, part: bytes) -> None:
        """Append a part to the message.

        Raises:
            RefusedError: The message has no header, or exceeds the size in it.
        """
        if self._header is None or len(part) > self._missing:
            raise RefusedError(UNEXPECTED_FRAME, "UNEXPECTED_FRAME - more of a message than its header announced")
        self._parts.append(part)
        self._missing -= len(part)
        if not self._missing:
            self._end_publish(self._header)

    def _reply(self, method: Any, *, nowait: bool = False) -> None:
        if not nowait:
            self._wire.send(self.number, method)

    # --- exchanges and queues -------------------------------------------------------------------------------------

    def _flow(self, method: Any) -> None:
        self.state.flowing = bool(method.active)
        self._reply(spec.Channel.FlowOk(active=method.active))
        self.state.resume()

    def _exchange_declare(self, method: Any) -> None:
        if method.passive:
            self._queues.find_exchange(method.exchange)
        else:
            self._queues.declare_exchange(method.exchange, method.type)
        self._reply(spec.Exchange.DeclareOk(), nowait=method.nowait)

    def _exchange_delete(self, method: Any) -> None:
        if method.if_unused and self._queues.find_exchange(method.exchange):
            raise RefusedError(PRECONDITION_FAILED, f"PRECONDITION_FAILED - exchange '{method.exchange}' in use")
        self._queues.delete_exchange(method.exchange)
        self._reply(spec.Exchange.DeleteOk(), nowait=method.nowait)

    def _queue(self, name: str) -> Queue:
        """Return the queue of a name; an empty name means the last one declared on this channel."""
        return self._queues.find(name or self._last_declared, self._wire)

    def _queue_declare(self, method: Any) -> None:
        if method.passive:
            queue = self._queue(method.queue)
        else:
            queue = self._queues.declare(
                method.queue, self._wire, exclusive=method.exclusive, auto_delete=method.auto_delete
            )
        self._last_declared = queue.name
        reply = spec.Queue.DeclareOk(queue=queue.name, message_count=queue.ready, consumer_count=len(queue.consumers))
        self._reply(reply, nowait=method.nowait)

    def _queue_bind(self, method: Any) -> None:
        self._queues.bind(self._queue(method.queue), method.exchange, method.routing_key)
        self._reply(spec.Queue.BindOk(), nowait=method.nowait)

    def _queue_unbind(self, method: Any) -> None:
        self._queues.unbind(self._queue(method.queue), method.exchange, method.routing_key)
        self._reply(spec.Queue.UnbindOk())

    def _queue_purge(self, method: Any) -> None:
        count = self._queue(method.queue).purge()
        self._reply(spec.Queue.PurgeOk(message_count=count), nowait=method.nowait)

    def _queue_delete(self, method: Any) -> None:
        count = 0
        name = method.queue or self._last_declared
        if name in self._queues:  # deleting an unknown queue succeeds
            queue = self._queue(name)
            if (method.if_unused and queue.consumers) or (method.if_empty and queue.ready):
                raise RefusedError(PRECONDITION_FAILED, f"PRECONDITION_FAILED - queue '{name}' in use or not empty")
            count = self._queues.delete(queue)
        self._reply(spec.Queue.DeleteOk(message_count=count), nowait=method.nowait)

    # --- from queues to the client --------------------------------------------------------------------------------

    def _qos(self, method: Any) -> None:
        if method.prefetch_size:
            raise RefusedError(NOT_IMPLEMENTED, "NOT_IMPLEMENTED - prefetch_size!=0")
        self.state.qos(method.prefetch_count, shared=method.global_qos)
        self._reply(spec.Basic.QosOk())

    def _consume(self, method: Any) -> None:
        queue = self._queue(method.queue)
        tag = method.consumer_tag or f"amq.ctag-{next(self._tags)}"
        self.state.consume(queue, tag, no_ack=method.no_ack, exclusive=method.exclusive)
        self._reply(spec.Basic.ConsumeOk(consumer_tag=tag), nowait=method.nowait)
        queue.pump()

    def _cancel(self, method: Any) -> None:
        self.state.cancel(method.consumer_tag)
        self._reply(spec.Basic.CancelOk(consumer_tag=method.consumer_tag), nowait=method.nowait)

    def _get(self, method: Any) -> None:
        queue = self._queue(method.queue)
        delivery = self.state.get(queue, no_ack=method.no_ack)
        if delivery is None:
            self._reply(spec.Basic.GetEmpty())
            return
        message = delivery.item.message
        reply = spec.Basic.GetOk(
            delivery_tag=delivery.tag,
            redelivered=delivery.item.redelivered,
            exchange=message.exchange,
            routing_key=message.routing_key,
            message_count=queue.ready,
        )
        self._wire.send_message(self.number, reply, message)

    def _ack(self, method: Any) -> None:
        self.state.settle(method.delivery_tag, multiple=method.multiple, requeue=False)

    def _nack(self, method: Any) -> None:
        self.state.settle(method.delivery_tag, multiple=method.multiple, requeue=method.requeue)

    def _reject(self, method: Any) -> None:
        self.state.settle(method.delivery_tag, multiple=False, requeue=method.requeue)

    def _recover(self, method: Any) -> None:
        if not method.requeue:  # deprecated; RabbitMQ refuses it with the same text
            raise RefusedError(NOT_IMPLEMENTED, "NOT_IMPLEMENTED - requeue=false")
        self._reply(spec.Basic.RecoverOk())
        self.state.recover()

    # --- from the client to queues --------------------------------------------------------------------------------

    def _confirm_select(self, method: Any) -> None:
        if self._confirms is None:
            self._confirms = itertools.count(1)
        self._reply(spec.Confirm.SelectOk(), nowait=method.nowait)

    def _begin_publish(self, method: Any) -> None:
        if method.immediate:
            raise RefusedError(NOT_IMPLEMENTED, "NOT_IMPLEMENTED - immediate=true")
        self._publish = method

    def _end_publish(self, header: bytes) -> None:
        method, body = self._publish, b"".join(self._parts)
        self._publish, self._header, self._parts = None, None, []
        message = Message(header=header, body=body, exchange=method.exchange, routing_key=method.routing_key)
        reached = self._queues.publish(message, self._wire.now())
        if not reached and method.mandatory:
            returned = spec.Basic.Return(
                reply_code=_NO_ROUTE, reply_text="NO_ROUTE", exchange=method.exchange, routing_key=method.routing_key
            )
            self._wire.send_message(self.number, returned, message)
        if self._confirms is not None:
            self._reply(spec.Basic.Ack(delivery_tag=next(self._confirms)))
