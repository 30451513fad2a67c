"""The seams of the agent: what has a real side and a verified fake."""

from __future__ import annotations

import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorFDSet, IReactorThreads, IReactorTime
from twisted.python.threadpool import ThreadPool
from zope.interface import Attribute, Interface

from ktlsagent.protocols.handshakefamily import HandshakeRequest
from ktlsagent.protocols.session import EstablishedSession


class IAgentReactor(IReactorTime, IReactorFDSet, IReactorThreads):
    """What the agent needs of a reactor: descriptors, time, and threads to reload in."""

    def getThreadPool() -> ThreadPool:
        """
        @return: the reactor's thread pool.
        """


class INetlinkSocket(Interface):
    """A generic netlink socket that never blocks."""

    def fileno() -> int:
        """
        @return: the descriptor, for the reactor.
        """

    def send(data: bytes) -> None:
        """
        Send one datagram to the kernel, which handles it before this returns.

        @param data: the octets.
        @raise OSError: if the kernel does not take it.
        """

    def receive() -> tuple[bytes, int]:
        """
        Take one datagram.  Who may administer the network namespace can send some, too.

        @return: its octets, of which very many are cut off, and its sender's
            netlink port, which is 0 only for the kernel.
        @raise OSError: C{EAGAIN} if there is none, C{ENOBUFS} if some were lost.
        """

    def join(group: int) -> None:
        """
        Join a multicast group.

        @param group: the group's number.
        @raise OSError: if the kernel refuses.
        """

    def groups() -> frozenset[int]:
        """
        @return: the multicast groups that the socket has joined.
        @raise OSError: if the kernel does not tell.
        """

    def namespace() -> int:
        """
        @return: a number that stands for the socket's network namespace.
        @raise OSError: if the kernel does not tell.
        """

    def portId() -> int:
        """
        @return: the socket's own netlink port.
        """

    def close() -> None:
        """
        Close the socket.
        """


class IHandshakeKernel(Interface):
    """The kernel's side of the C{handshake} family."""

    foreign = Attribute("How many datagrams came from others than the kernel; all were dropped.")
    foreigner = Attribute("The netlink port of the last of their senders, mostly a process id.")

    def open() -> None:
        """
        Find the family and learn what it takes.

        @raise StartError: if that is not possible here, with what to do.
        """

    def listen() -> None:
        """
        Count as the family's listener from now on.

        @raise StartError: if that is not possible here, with what to do.
        """

    def fileno() -> int:
        """
        @return: the descriptor of the socket that READY comes on.
        """

    def readReady() -> int | None:
        """
        Read what is on the socket that READY comes on: one for each request.
        If very much is there, the rest is left for the next time.

        @return: how many requests have been announced; C{None} if that is not
            known, because announcements were lost.
        @raise NetlinkError: if the socket is of no use any more.
        """

    def commandDescriptor() -> int:
        """
        @return: the descriptor of the socket of ACCEPT and DONE, which are
            answered before they return: whatever else comes on it is a stray.
        """

    def discardStrays() -> int:
        """
        Empty the socket of ACCEPT and DONE, whose receive buffer must have
        room for the next answer.  If very much is there, the rest is left for
        the next time.

        @return: how many datagrams there were.
        """

    def accept() -> HandshakeRequest | None:
        """
        Take the oldest pending request.

        @return: the request, whose descriptor the caller owns from now on and
            has to answer with L{done} and then close; C{None} if nothing is
            pending.
        @raise MalformedRequest: if the reply cannot be read; its descriptor
            is the caller's all the same, and has to be answered.
        @raise OutOfDescriptors: if there is no room for one more descriptor;
            nothing was asked of the kernel.
        @raise NetlinkError: if the kernel refuses, or if it cannot be told
            what it says; a request is then answered already.
        """

    def requireRoom() -> None:
        """
        See whether there is room for the descriptor of one more request.

        @raise OutOfDescriptors: if there is none.
        """

    def done(
        descriptor: int,
        status: int,
        remoteAuth: Sequence[int] = (),
        tags: Sequence[str] = (),
    ) -> Sequence[str]:
        """
        Answer a request.

        @param descriptor: the request's descriptor, still open.
        @param status: 0 or a positive errno.
        @param remoteAuth: what the peer authenticated as.
        @param tags: the session tags that the peer gets, most important first.
            They are sent with the status 0, to a kernel that knows them.
        @return: the tags that such a kernel did not get, because they are too
            many, or because it would refuse the whole answer for them.
        @raise NetlinkError: if the kernel did not take the answer: C{EBUSY} if
            the consumer has given up, for some kernels also if it has been
            answered before, which the others take without effect.
        """

    def otherListeners() -> Sequence[int]:
        """
        Find out who else waits for READY in this network namespace.

        @return: the netlink ports of the others, mostly their process ids.
        """

    def leave() -> None:
        """
        Stop listening, and take no more requests.  Those that were accepted can still be
        answered.
        """

    def close() -> None:
        """
        Stop listening and close the sockets.
        """


class IAnnouncements(Interface):
    """
    Where a service learns that requests wait: the kernel's READY, or a parent that
    reads READY and shares the requests out among its workers.
    """

    def begin() -> None:
        """
        Be told from now on.

        @raise StartError: if that is not possible here, with what to do.
        """

    def fileno() -> int:
        """
        @return: a descriptor that is readable while there is something to be heard.
        """

    def heard() -> None:
        """
        The descriptor was readable.
        """

    def due() -> int | None:
        """
        Find out whether requests wait.  Costs little: it is asked between steps.

        @return: how many times to ask the kernel for one; C{None}: until nothing is pending.
        @raise NetlinkError: if the kernel tells nothing any more.
        """

    def announced(patience: float) -> float | None:
        """
        Say when a request was announced that has just been taken, or has been refused:
        the kernel's time for it runs from there.

        @param patience: for how many seconds the kernel waits for it.
        @return: the time, by the reactor's clock; C{None} if it is not known.
        """

    def settled(left: int) -> None:
        """
        What was due has been done.

        @param left: how many requests could not be asked for, as there is no room for them;
            0 if there is.
        """

    def room() -> None:
        """
        There is room again, after C{left} was not 0.
        """

    def load(inFlight: int, latest: float, *, busy: bool, crowded: bool) -> None:
        """
        Hear how much there is to do.

        @param inFlight: how many requests have not been answered.
        @param latest: when the last one of them will have been, in the reactor's seconds.
        @param busy: whether there is work that waits for nobody but the processor.
        @param crowded: whether no more handshakes may begin before some have ended.
        """

    def end() -> None:
        """
        No more requests are asked for.
        """


class IKernelTLS(Interface):
    """kTLS on a connected TCP socket."""

    def probe() -> frozenset[str]:
        """
        Find out which cipher suites the running kernel takes for TLS 1.3.

        @return: names of L{ktlsagent.protocols.cryptoinfo.CIPHER_SUITES}.
        @raise StartError: if there is no kTLS at all, with what to do.
        """

    def install(connection: socket.socket, session: EstablishedSession) -> None:
        """
        Give a session's keys to the kernel and check that it took them.

        @param connection: the socket, all of whose output has been sent.
        @param session: the session.
        @raise SessionUnusable: if the kernel did not take them; the socket is
            then of no use.
        @raise PeerLeft: if there is no connection any more; what the peer has
            said before is still in the socket.
        """


@dataclass(frozen=True, slots=True)
class KeyDescription:
    """
    What the kernel says about a key (C{keyctl_describe(3)}).

    @ivar type: C{user}, C{psk}, C{keyring} and so on.
    @ivar description: its name, which whoever made it has chosen: any octets but NUL.
    @ivar uid: who owns it, as our user namespace numbers users.
    @ivar permissions: the rights of possessor, owner, group and others, an octet for each
        (C{keyctl_setperm(3)}).
    """

    type: str
    description: bytes
    uid: int
    permissions: int


class IKeyrings(Interface):
    """
    The kernel's keys, and the process keyring, into which the kernel links a
    request's keyring.  What is in there is ours to read.
    """

    def createProcessKeyring() -> None:
        """
        Make sure that there is a process keyring.  Has to be called before
        any thread is started: later threads share it only then.

        @raise StartError: if the kernel refuses.
        """

    def restriction() -> str | None:
        """
        Say what cannot be done with keys here.

        @return: in words, with what to do; C{None} if nothing stands in the way.
        """

    def find(names: Collection[str]) -> Mapping[str, int]:
        """
        Find keyrings by their names, wherever they are: those that are root's or our own
        and that nobody else may change.  The kernel has no call for it, and its list of
        all keys may be long: this belongs into a thread.

        @param names: their descriptions.
        @return: their serials, without those that were not found.
        @raise OSError: if there is no list of keys.
        """

    def search(keyring: int, kind: str, description: bytes) -> int | None:
        """
        Have the kernel look for a key in a keyring and in those that are inside of it.
        The kernel may take one whose description only begins like that.

        @param keyring: the keyring's serial.
        @param kind: the key's type.
        @param description: the key's description.
        @return: a serial, C{None} if there is none.
        @raise OSError: if the kernel refuses, or has found one that is of no use.
        """

    def link(serial: int) -> None:
        """
        Put a keyring into the process keyring.

        @param serial: the keyring's serial.
        @raise OSError: if the kernel refuses.
        """

    def keys(keyring: int) -> Sequence[int]:
        """
        List what is in a keyring.

        @param keyring: its serial.
        @return: the serials of its keys.
        @raise OSError: if it may not be read.
        """

    def describe(serial: int) -> KeyDescription:
        """
        Describe a key.

        @param serial: its serial.
        @return: its type, its name, and whose it is.
        @raise OSError: if there is no such key, or it may not be seen.
        """

    def read(serial: int) -> bytes:
        """
        Read a key.

        @param serial: its serial.
        @return: its payload.
        @raise OSError: if there is no such key, if it is revoked or expired,
            or if it may not be read.
        """

    def unlink(serial: int) -> None:
        """
        Take a keyring out of the process keyring.

        @param serial: the keyring's serial.
        @raise OSError: if it cannot be taken out.
        """

    def linked() -> Sequence[int]:
        """
        @return: the serials of what is linked into the process keyring.
        """
