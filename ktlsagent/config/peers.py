"""
How those values in a configuration are read that are about peers: networks and
ports, pins, rules, tags.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Sequence
from typing import Final

from ktlsagent.config.keyfile import Entry, quote, splitList
from ktlsagent.config.values import Wrong, readList
from ktlsagent.peers.authorisation import Rule, parseRule
from ktlsagent.profiles import Network

_LAST_PORT: Final = 65535
_PORTS: Final = re.compile(r"([0-9]{1,5})(?:\s*-\s*([0-9]{1,5}))?")
_PIN: Final = re.compile("sha256:(?:([0-9a-fA-F]{64})|([A-Za-z0-9+/]{43}=))")
_TAG: Final = re.compile("[A-Za-z0-9_-]{1,255}")


def readNetworks(entry: Entry) -> tuple[Network, ...]:
    """
    Read a list of addresses and networks.

    @param entry: the entry.
    @return: the networks, at least one.
    @raise ConfigError: if there is none, or one is wrong.
    """
    return readList(entry, _network)


def readPorts(entry: Entry) -> tuple[range, ...]:
    """
    Read a list of ports and ranges of ports.

    @param entry: the entry.
    @return: the ranges, at least one.
    @raise ConfigError: if there is none, or one is wrong.
    """
    return readList(entry, _ports)


def readPins(entry: Entry) -> frozenset[bytes]:
    """
    Read a list of pins, or the word C{none}.

    @param entry: the entry.
    @return: the digests.
    @raise ConfigError: if there is none, or one is wrong.
    """
    return frozenset(readList(entry, _pin, nothing="none"))


def readRules(entry: Entry, nothing: str) -> tuple[Rule, ...]:
    """
    Read a list of authorisation rules.

    @param entry: the entry.
    @param nothing: the word for the list without rules.
    @return: the rules.
    @raise ConfigError: if there is none, or one is wrong.
    """

    def read(text: str) -> Rule:
        try:
            return parseRule(text)
        except ValueError as error:
            found = f"one that cannot be read ({error})"
            advice = "within a rule ; is written \\; and a backslash \\\\"
            raise Wrong(f"rules, or {nothing}", found, advice) from None

    return readList(entry, read, nothing=nothing)


def remarkOnDenied(rules: Sequence[Rule]) -> str:
    """
    Say what there is to be thought of with rules to deny.

    @param rules: the rules.
    @return: a sentence, or nothing.
    """
    if any(rule.text.startswith("fingerprint:") for rule in rules):
        return (
            "a fingerprint is that of one form of a certificate, and its holder may have another: "
            "deny content:, key: or serial:, which its CA has signed (docs/policy.md has commands)"
        )
    return ""


def readTags(entry: Entry) -> tuple[str, ...] | None:
    """
    Read a list of session tags, or the word C{none} or C{all}.

    @param entry: the entry.
    @return: their names; L{None} for all.
    @raise ConfigError: if one cannot be the name of a tag.
    """
    if splitList(entry) == ["all"]:
        return None
    return readList(entry, _tag, nothing="none")


def _network(text: str) -> Network:
    expected = "addresses and networks, with ; between them"
    advice = "write them like 192.0.2.7, 192.0.2.0/24, 2001:db8::7 or 2001:db8::/32"
    if "%" in text:
        raise Wrong(expected, f"{quote(text)} with a zone", "remove the zone")
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise Wrong(expected, quote(text), advice) from None
    address, _, length = text.partition("/")
    if length and ipaddress.ip_address(address) != network.network_address:
        advice = f"write {network} for the network or {address} for the address"
        raise Wrong(expected, f"{text!r}, an address and the length of its network", advice)
    if isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped:
        advice = "write the IPv4 address or network that it stands for"
        raise Wrong(expected, f"{text!r}, which stands for IPv4", advice)
    return network


def _ports(text: str) -> range:
    numbers = _PORTS.fullmatch(text)
    first, last = (int(numbers[1]), int(numbers[2] or numbers[1])) if numbers else (0, 0)
    if 0 < first <= last <= _LAST_PORT:
        return range(first, last + 1)
    expected = f"ports from 1 to {_LAST_PORT} and ranges of them, with ; between them"
    raise Wrong(expected, quote(text), "write them like 2049 or 600-1023")


def _pin(text: str) -> bytes:
    pin = _PIN.fullmatch(text)
    if pin:
        return bytes.fromhex(pin[1]) if pin[1] else base64.b64decode(pin[2])
    raise Wrong(
        "pins like sha256:BASE64, with 44 characters, or sha256:HEX, with 64 digits",
        quote(text),
        "openssl x509 -in CERTIFICATE -pubkey -noout | openssl pkey -pubin -outform DER"
        " | openssl dgst -sha256 shows the digits",
    )


def _tag(name: str) -> str:
    if _TAG.fullmatch(name):
        return name
    advice = "write them as they are in the directory of tags, or all, or none"
    raise Wrong("names of tags, of letters, digits, - and _", quote(name), advice)
