"""The examples in docs/policy.md are what they say."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.config import TAG_DIRECTORY, AgentConfig, parseConfig
from ktlsagent.config.keyfile import Entry
from ktlsagent.config.keys import (
    ACCESS_KEYS,
    HANDSHAKE_KEYS,
    MATCH_KEYS,
    MODES,
    OWN_KEYS,
    PRESETS,
    PROFILE_KEYS,
    ROLE_KEYS,
    ROLES,
    SUITE_KEYS,
    TRUST_KEYS,
)
from ktlsagent.errors import ConfigError
from ktlsagent.peers.authorisation import judgeAccess
from ktlsagent.peers.presented import Presented
from ktlsagent.profiles import Asked, Endpoint, Profile, choose
from tests.support.certificates import DAY, NOW

TEXT = (Path(__file__).parent.parent / "docs" / "policy.md").read_text()
_CODE = re.compile(r"`([^`]+)`")

AGENT_KEYS = {
    "keyrings": "keyrings",
    "loglevel": "debugLevel",
    "max_handshakes": "mostHandshakes",
    "max_per_peer": "mostPerPeer",
    "tags_directory": "tagDirectory",
    "workers": "workers",
}
"""The attributes of a configuration that keys outside profiles are for, if they have an effect."""


@dataclass(frozen=True)
class Table:
    """
    A table.

    @ivar header: the cells of its first line.
    @ivar rows: the cells of the others.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Example:
    """
    An example.

    @ivar config: the configuration.
    @ivar tables: what is said about it.
    @ivar mistakes: what the log says about it; empty if it is good.
    """

    config: str
    tables: Sequence[Table]
    mistakes: str


def tables(text: str) -> Iterator[Table]:
    """
    Find tables.

    @param text: text in Markdown.
    @return: the tables.
    """
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        header, _, *rows = [
            [cell.strip() for cell in line.strip().strip("|").split(" | ")]
            for line in block.splitlines()
        ]
        yield Table(header, rows)


def examples() -> Iterator[Example]:
    """
    Find the examples.

    @return: each block of configuration, with what comes before the next.
    """
    _, *parts = re.split(r"^```ini\n", TEXT, flags=re.MULTILINE)
    for part in parts:
        config, _, text = part.partition("```\n")
        # A heading ends what is said about an example.
        text = re.split("^#", text, flags=re.MULTILINE)[0]
        mistakes = re.search(r"^```text\n(.*?)```", text, re.MULTILINE | re.DOTALL)
        yield Example(config, list(tables(text)), mistakes[1] if mistakes else "")


def words(text: str) -> dict[str, list[str]]:
    """
    Read words such as C{key=value}.

    @param text: the words.
    @return: the values by key.
    """
    found: dict[str, list[str]] = {}
    for word in text.split():
        key, _, value = word.partition("=")
        found.setdefault(key, []).append(value)
    return found


def endpoint(values: Sequence[str]) -> Endpoint | None:
    """
    Read one end of a connection.

    @param values: at most one address with a port.
    @return: the end.
    """
    for value in values:
        address, _, port = value.rpartition(":")
        return Endpoint(ipaddress.ip_address(address.strip("[]")), int(port))
    return None


def asked(text: str) -> Asked:
    """
    Read a request.

    @param text: its words.
    @return: what is known about it.
    """
    found = words(text)
    return Asked(
        ROLES[found["role"][0]],
        MODES[found["mode"][0]],
        endpoint(found.get("local", ())),
        endpoint(found.get("peer", ())),
        found.get("name", [None])[0],
        found.get("keyring", [None])[0],
        frozenset(found.get("namespace", ())),
    )


@functools.cache
def key() -> ec.EllipticCurvePrivateKey:
    """
    Make a key, once.

    @return: the key.
    """
    return ec.generate_private_key(ec.SECP256R1())


def certificate(text: str) -> x509.Certificate | None:
    """
    Make a certificate.

    @param text: its words.
    @return: the certificate; L{None} if there are none.
    """
    found = words(text)
    if not found:
        return None
    units = found.get("subject.OU", [])
    subject = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit) for unit in units]
    )
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in found.get("dns", ())]
    names += [x509.IPAddress(ipaddress.ip_address(name)) for name in found.get("ip", ())]
    names += [x509.UniformResourceIdentifier(name) for name in found.get("uri", ())]
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA")]))
        .public_key(key().public_key())
        .serial_number(int(found.get("serial", ["1"])[0], 16))
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key(), hashes.SHA256())
    )


def inEffect(profile: Profile, name: str) -> object:
    """
    Say what a profile has for a key.

    @param profile: the profile.
    @param name: the key.
    @return: the value, as it is read from a configuration.
    """
    if name == "tags":
        return profile.tags
    if name == "x509.certificate":
        return tuple(files.certificate for files in profile.own.certificates)
    if name == "x509.private_key":
        return tuple(files.privateKey for files in profile.own.certificates)
    for part, keys in (
        (profile.match, MATCH_KEYS),
        (profile.trust, TRUST_KEYS),
        (profile.own, OWN_KEYS),
        (profile.handshake, HANDSHAKE_KEYS),
        (profile.access, ACCESS_KEYS),
    ):
        if name in keys:
            return getattr(part, keys[name].field)
    raise KeyError(name)


def shownIn(example: Example) -> set[str]:
    """
    Find the keys that a good example has.

    @param example: the example.
    @return: the keys; none if it is one of mistakes.
    """
    if example.mistakes:
        return set()
    return set(re.findall("^([a-z0-9_.]+)=", example.config, re.MULTILINE))


def _written(value: object) -> str:
    """Write a number, or a list of names, as in a configuration."""
    return ";".join(value) if isinstance(value, tuple) else str(value)


def read(name: str, value: str) -> object:
    """
    Read a value as if it were in a configuration.

    @param name: its key.
    @param value: the value.
    @return: what is read.
    """
    return PROFILE_KEYS[name].read(Entry("docs", name, value, 1))


class ExampleTests(SynchronousTestCase):
    """Tests for the examples and what is said about them."""

    def test_everyExampleIsChecked(self) -> None:
        """Each example is a configuration, with something said about it that is true."""
        count = 0
        for example in examples():
            if example.mistakes:
                error = self.assertRaises(ConfigError, parseConfig, example.config, None)
                self.assertEqual(f"{error}\n", example.mistakes)
                continue
            self.assertTrue(example.tables, example.config)
            count += self.checkAll(example.config, example.tables)
        self.assertGreater(count, 50)

    def test_everyKeyCounts(self) -> None:
        """For each key there is an example of which something is not true without it."""
        counting = set()
        for example in examples():
            for name in shownIn(example):
                config = re.sub(rf"^{re.escape(name)}=.*\n", "", example.config, flags=re.MULTILINE)
                try:
                    self.checkAll(config, example.tables)
                except (ConfigError, self.failureException):
                    counting.add(name)
        self.assertEqual({*PROFILE_KEYS, *AGENT_KEYS} - counting, set())

    def checkAll(self, text: str, said: Sequence[Table]) -> int:
        """
        Check all that is said about an example.

        @param text: the example.
        @param said: what is said about it.
        @return: how many rows that are.
        """
        config = parseConfig(text, None)
        for table in said:
            about = _CODE.search(" ".join(table.header))
            for row in table.rows:
                self.check(config, about[1] if about else "", table.header[0], row)
        return sum(len(table.rows) for table in said)

    def check(self, config: AgentConfig, about: str, kind: str, row: Sequence[str]) -> None:
        """
        Check one row of a table.

        @param config: the configuration.
        @param about: the name of that which the table is about, if it is about one.
        @param kind: how the table's first line begins.
        @param row: the cells.
        """
        named = {profile.name: profile for profile in config.profiles}
        if kind == "request":
            self.checkRequest(config.profiles, *row)
        elif kind == "of the agent":
            name, value = (cell.strip("`") for cell in row)
            found = getattr(config, AGENT_KEYS[name])
            self.assertEqual(found if isinstance(found, str) else _written(found), value, name)
        elif kind == "certificate":
            self.checkCertificate(named[about], *row)
        else:
            self.checkValue(named[about], *row[:2])

    def checkRequest(self, profiles: Sequence[Profile], request: str, name: str) -> None:
        """
        Check by which profile a request is served.

        @param profiles: all profiles.
        @param request: the request.
        @param name: the profile's name.
        """
        among = [SimpleNamespace(profile=profile) for profile in profiles]
        chosen = choose(among, asked(request.strip("`")))
        assert chosen
        self.assertEqual(f"`{chosen.profile.name}`", name, request)

    def checkCertificate(self, profile: Profile, text: str, verdict: str) -> None:
        """
        Check what is made of a certificate.

        @param profile: the profile.
        @param text: the certificate, and from where it comes.
        @param verdict: the code of the refusal, if it is one.
        """
        shown, address = text.removeprefix("none ").rsplit("from ", 1)
        refusal = judgeAccess(
            profile.access,
            Presented(certificate(shown.strip().strip("`"))),
            ipaddress.ip_address(address.strip("`")),
        )
        self.assertEqual(f"`{refusal.code}`" if refusal else "comes in", verdict, text)

    def checkValue(self, profile: Profile, name: str, value: str) -> None:
        """
        Check what a profile has for a key.

        @param profile: the profile.
        @param name: the key.
        @param value: the value as it would be written.
        """
        name, value = name.strip("`"), value.strip("`")
        self.assertEqual(inEffect(profile, name), read(name, value), name)


class ReferenceTests(SynchronousTestCase):
    """Tests for the tables of keys."""

    def rows(self, *headers: str) -> list[Sequence[str]]:
        """
        Find the rows of tables.

        @param headers: how their first lines begin.
        @return: the rows.
        """
        return [row for table in tables(TEXT) if table.header[0] in headers for row in table.rows]

    def test_complete(self) -> None:
        """Every key of profiles is explained, once, and is in an example."""
        explained = [
            name
            for row in self.rows("key", "condition")
            for name in re.findall("`([^`]+)=`", row[0])
        ]
        self.assertEqual(len(explained), len(set(explained)))
        self.assertEqual({*explained, "preset"}, {*PROFILE_KEYS, "tags_directory"})
        shown = set().union(*map(shownIn, examples()))
        self.assertEqual(set(explained) - shown, set())

    def test_agentComplete(self) -> None:
        """Every other key is explained, with its section and its default."""
        explained = set()
        for names, _, value in self.rows("setting"):
            *keys, section = _CODE.findall(names)
            known = str(self.assertRaises(ConfigError, parseConfig, f"{section}\n@=1\n", None))
            for name in (key.strip("=") for key in keys):
                self.assertRegex(known, rf"\b{name}\b")
                explained.add(name)
                if name in AGENT_KEYS:
                    default = getattr(AgentConfig(), AGENT_KEYS[name])
                    shown = {None: "`auto`", (): "none"}.get(default, f"`{default}`")
                    self.assertEqual(shown, value, name)
        everything: set[str] = set()
        for section in ("debug", "authenticate", "ktlsagent"):
            error = self.assertRaises(ConfigError, parseConfig, f"[{section}]\n@=1\n", None)
            everything |= set(error.mistakes[0].advice.removeprefix("known are ").split(", "))
        self.assertEqual(explained, everything - {*SUITE_KEYS, "tags_directory"})

    def test_defaults(self) -> None:
        """The defaults are as the tables of keys have them."""
        *_, server = AgentConfig().profiles
        checked = set()
        for names, _, value in self.rows("key"):
            name = names.strip("`=")
            default = _CODE.fullmatch(value)
            if default and name in ROLE_KEYS:
                self.assertEqual(inEffect(server, name), read(name, default[1]), name)
                checked.add(name)
            elif default:
                self.assertEqual((default[1], names[:17]), (TAG_DIRECTORY, "`tags_directory=`"))
        own = {"x509.certificate", "x509.private_key", "x509.pq.certificate", "token_pin"}
        own |= {"x509.pq.private_key", "suites", "signature_algorithms"}
        self.assertEqual(checked, set(ROLE_KEYS) - own)

    def test_presets(self) -> None:
        """The presets are as their table has them."""
        shown = {}
        for preset, *lines in self.rows("preset"):
            pairs = [pair.split("=") for line in lines for pair in _CODE.findall(line)]
            shown[preset.strip("`")] = {name: read(name, value) for name, value in pairs}
        self.assertEqual(shown, PRESETS)

    def test_linksLeadSomewhere(self) -> None:
        """Each link to a section has one."""
        headings = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
        anchors = {
            re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings
        }
        links = set(re.findall(r"\]\(#([^)]+)\)", TEXT))
        self.assertGreater(len(links), 10)
        self.assertEqual(links - anchors, set())
