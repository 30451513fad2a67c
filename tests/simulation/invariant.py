"""What has to hold at the end of every schedule, in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cryptography.exceptions import InvalidTag
from twisted.logger import eventAsText

from tests.simulation.kernel import Asked
from tests.simulation.ktlssocket import KernelSide
from tests.simulation.materials import SECRET
from tests.simulation.world import Conversation, World

_HEADER = 5


def violations(world: World) -> list[str]:
    """
    Check a schedule that has come to its end.

    @param world: all that took part.
    @return: what does not hold, in words; nothing if all is well.
    """
    found = [f"an exception left the agent: {one.getTraceback()}" for one in world.reactor.escaped]
    for number, conversation in enumerate(world.conversations):
        found += [f"request {number}: {words}" for words in _answered(world, conversation.asked)]
    found += _sessions(world)
    found += _nothingLeft(world)
    found += _logged(world)
    return found


def _answered(world: World, asked: Asked) -> Iterator[str]:
    """Exactly one DONE for each ACCEPT, in time, and success only with keys."""
    if asked.acceptedAt is None:
        if asked.timedOut and not _deaf(world, asked) and not world.starved:
            yield f"announced at {asked.since:.3f} and never accepted"
        if asked.attempts:
            yield "answered and never accepted"
        return
    if len(asked.attempts) != 1:
        yield f"accepted once, answered {len(asked.attempts)} times: {asked.attempts}"
        return
    attempt = asked.attempts[0]
    if attempt.status == 0 and not attempt.withKeys:
        yield "the answer is success, and kTLS has no keys"
    patient = asked.cancelled is None or asked.timedOut
    if attempt.at > asked.until and patient and not world.starved and not _deaf(world, asked):
        yield f"answered at {attempt.at:.3f}, given up by its consumer at {asked.until:.3f}"


def _deaf(world: World, asked: Asked) -> bool:
    """Whether there was a time without an agent while the request waited for one."""
    return any(began <= asked.until and ended > asked.since for began, ended in world.gaps)


def _sessions(world: World) -> Iterator[str]:
    """Whoever was told of a success can talk to the peer, in both directions."""
    served: dict[int, Conversation] = {}
    for number, conversation in enumerate(world.conversations):
        asked = conversation.asked
        side = world.sides.find(asked.identity)
        if asked.upcall.status != 0 or side is None:
            continue
        served[number] = conversation
        peer = conversation.peer
        if peer is not None and peer.lasting and peer.error is None:
            yield from (f"request {number}: {words}" for words in _talk(conversation, side))


def _talk(conversation: Conversation, side: KernelSide) -> Iterator[str]:
    """Send a record each way, as the kernel would."""
    peer, consumer = conversation.peer, conversation.consumer
    if peer is None or side.transmit is None or side.receive is None:
        return
    consumer.setblocking(True)
    consumer.settimeout(5.0)
    try:
        peer.say(b"from the peer")
        expected = peer.early + b"from the peer"
        heard = b""
        while len(heard) < len(expected):
            header = _exactly(consumer.recv, _HEADER)
            record = header + _exactly(consumer.recv, int.from_bytes(header[3:], "big"))
            kind, content = side.receive.open(record)
            heard += content if kind == 23 else b""
        if heard != expected:
            yield f"the kernel reads {heard!r} instead of {expected!r}"
        consumer.sendall(side.transmit.seal(b"from the kernel"))
        if (read := peer.listen()) != b"from the kernel":
            yield f"the peer reads {read!r}"
    except (InvalidTag, OSError) as error:
        yield f"the keys do not work: {error!r}"


def _exactly(receive: Callable[[int], bytes], size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = receive(size - len(data))
        if not part:
            raise ConnectionError("closed")
        data += part
    return data


def _nothingLeft(world: World) -> Iterator[str]:
    """No descriptor, no timer, no key link, nothing that waits."""
    for ledger in world.ledgers:
        if not ledger.balanced():
            yield f"the books do not balance: {ledger}"
    if world.kernel.strangers:
        yield f"{world.kernel.strangers} answers for descriptors that were no request's any more"
    if world.keyrings.linked():
        yield f"keyrings are still linked: {world.keyrings.linked()}"
    kept = sum(socket() is not None for socket in world.sockets)
    if kept:
        yield f"{kept} requests are over, and somebody keeps what they were made of"
    waiting = [*world.reactor.getReaders(), *world.reactor.getWriters()]
    if waiting:
        yield f"the reactor still waits for {waiting}"
    calls = world.reactor.getDelayedCalls()
    if calls:
        yield f"calls are still delayed: {calls}"
    if any(not stopped.called for stopped in world.stopping):
        yield "an agent does not stop"
    if world.kernel.sockets:
        yield f"netlink sockets are still open: {world.kernel.sockets}"


def _logged(world: World) -> Iterator[str]:
    """One line for each request, no bug, no secret."""
    accepted = sum(asked.acceptedAt is not None for asked in world.kernel.asked)
    told = sum("outcome" in event for event in world.events)
    if told != accepted:
        yield f"{accepted} requests were accepted, {told} were told of"
    for event in world.events:
        text = eventAsText(event) or ""
        if "bug in ktlsagent" in text:
            yield f"a bug was logged: {text}"
        if SECRET.decode("latin-1")[-16:] in text or SECRET.hex() in text:
            yield f"the pre-shared key was logged: {text}"
