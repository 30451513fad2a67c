"""Tests for L{ktlsagent.config}."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.config import (
    DEFAULT_PROFILES,
    SEARCH_ORDER,
    AgentConfig,
    findConfig,
    loadConfig,
    parseConfig,
)
from ktlsagent.config.keys import GROUPS, PROFILE_KEYS
from ktlsagent.errors import ConfigError, Mistake
from ktlsagent.profiles import CertificateFiles, Match, Own, Profile, Trust
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES
from ktlsagent.protocols.session import Role
from ktlsagent.safefiles import SAFE

# What the package of tlshd 1.4 installs, as far as a program can see: its keys
# without a default are in comments.
AS_INSTALLED = """\
#
# comment
#

[debug]
loglevel=0
tls=0
nl=0

[authenticate]
#keyrings= <keyring>;<keyring>;<keyring>

[authenticate.client]
#x509.truststore= <pathname>
#x509.crl= <pathname>
#x509.certificate= <pathname>
#x509.private_key= <pathname>

[authenticate.server]
#x509.truststore= <pathname>
#x509.crl= <pathname>
#x509.certificate= <pathname>
#x509.private_key= <pathname>
"""

# The same after an operator's work, with everything that tlshd knows.
IN_USE = """\
[debug]
loglevel = 1
tls=9
nl=2
delay_done=3

[authenticate]
keyrings= nfs-clients;.nfs ;

[authenticate.client]
x509.truststore= /etc/tlshd/ca.pem
x509.crl= /etc/tlshd/ca.crl
x509.certificate= /etc/tlshd/client.pem
x509.private_key= /etc/tlshd/client.key
x509.pq.certificate= /etc/tlshd/client-pq.pem
x509.pq.private_key= pkcs11:token=tlshd;object=pq

[authenticate.server]
x509.certificate=/etc/tlshd/server.pem
x509.private_key=/etc/tlshd/server.key
"""

# What lines are made of that look like a configuration's.
HEADERS = ["[main]", "[x]", "[profile.a]", "[profile.b]", "-----BEGIN X-----", "-----END X-----"]
HEADERS += re.findall(r"^\[.+\]$", IN_USE, re.MULTILINE)
KEYS = ["loglevel", "keyrings", "tags_directory", "zz", "", *PROFILE_KEYS]
WORDS = [*CIPHER_SUITES, *GROUPS, "none", "client", "server", "psk", "x509", "nvme", "require"]
WORDS += ["/a", "/a;/b", "192.0.2.0/24", "2049", "dns:a", f"sha256:{'0' * 64}", "pkcs11:a=b"]
VALUES = st.text(alphabet="/a;\\s 0\t\x1bé#:") | st.text() | st.sampled_from(WORDS)
ENTRIES = st.builds("{}={}".format, st.sampled_from(KEYS), VALUES)


class ParsingTestCase(SynchronousTestCase):
    """What the test cases below have in common."""

    def mistakes(self, text: str) -> tuple[Mistake, ...]:
        """
        Parse a text that has mistakes.

        @param text: the configuration.
        @return: the mistakes.
        """
        error: ConfigError = self.assertRaises(ConfigError, parseConfig, text, None)
        return error.mistakes

    def mistake(self, text: str) -> Mistake:
        """
        Parse a text that has one mistake.

        @param text: the configuration.
        @return: the mistake.
        """
        mistakes = self.mistakes(text)
        self.assertEqual(len(mistakes), 1, mistakes)
        return mistakes[0]


class ValueTests(ParsingTestCase):
    """Tests for what a configuration without mistakes becomes."""

    def test_nothing(self) -> None:
        """
        An empty file is the defaults: a profile for each role that matches
        everything and has the defaults of profiles.
        """
        client = Profile("authenticate.client", Match(roles=(Role.CLIENT,)))
        server = Profile("authenticate.server", Match(roles=(Role.SERVER,)))
        self.assertEqual(
            parseConfig("", None),
            AgentConfig(
                path=None,
                profiles=(client, server),
                keyrings=(),
                debugLevel=0,
                notices=(),
                tagDirectory="/etc/tlshd/tags.d",
            ),
        )
        self.assertEqual(parseConfig("", None), AgentConfig())

    def test_frozen(self) -> None:
        """A configuration and its parts cannot be changed once made."""
        config = parseConfig("", None)
        for value, name in ((config, "debugLevel"), (config.profiles[0], "name")):
            self.assertRaises(FrozenInstanceError, setattr, value, name, None)

    def test_asInstalled(self) -> None:
        """The file that tlshd's package installs is the defaults, without notices."""
        self.assertEqual(parseConfig(AS_INSTALLED, None), AgentConfig())

    def test_inUse(self) -> None:
        """
        A file that uses all that tlshd knows is understood, path included; of
        two certificates the one for quantum computers comes first.
        """
        config = parseConfig(IN_USE, "/etc/tlshd/config")
        client, server = DEFAULT_PROFILES
        own = (
            CertificateFiles("/etc/tlshd/client-pq.pem", "pkcs11:token=tlshd;object=pq"),
            CertificateFiles("/etc/tlshd/client.pem", "/etc/tlshd/client.key"),
        )
        trust = Trust(stores=("/etc/tlshd/ca.pem",), crls=("/etc/tlshd/ca.crl",))
        files = CertificateFiles("/etc/tlshd/server.pem", "/etc/tlshd/server.key")
        self.assertEqual(
            replace(config, notices=()),
            AgentConfig(
                path="/etc/tlshd/config",
                profiles=(
                    replace(client, trust=trust, own=Own(certificates=own)),
                    replace(server, own=Own(certificates=(files,))),
                ),
                keyrings=("nfs-clients", ".nfs"),
                debugLevel=1,
            ),
        )

    def test_notices(self) -> None:
        """
        Each key without effect has a notice in the order of the file that names
        line, section and key, and says what happens instead.
        """
        notices = parseConfig(IN_USE, None).notices
        self.assertEqual(
            [notice.partition(" has no effect: ")[0] for notice in notices],
            ["line 3: [debug] tls", "line 4: [debug] nl", "line 5: [debug] delay_done"],
        )
        self.assertIn("answered at once", notices[2])

    def test_deniedFingerprints(self) -> None:
        """Who denies a fingerprint is told what would be better; who allows one is not."""
        digits = 64 * "a"
        for line, count in (
            (f"deny=dns:a;fingerprint:{digits}", 1),
            (f"allow=fingerprint:{digits}", 0),
            (f"deny=key:{digits};content:{digits};serial:1,CN=CA;tag:fingerprint", 0),
            ("deny=none", 0),
        ):
            text = f"[profile.a]\nrole=server\n{line}\n[authenticate.server]\n{line}\n"
            notices = parseConfig(text, None).notices
            places = ["line 3: [profile.a] deny: a f", "line 5: [authenticate.server] deny: a f"]
            starts = [notice.partition("ingerprint")[0] for notice in notices]
            self.assertEqual(sorted(starts), sorted(places * count))
            for notice in notices:
                self.assertIn("deny content:, key: or serial:, which its CA has signed", notice)

    def test_ours(self) -> None:
        """
        Suites and groups are taken in the order given, for all profiles, blanks
        around the names and a separator at the end notwithstanding.
        """
        config = parseConfig(
            "[ktlsagent]\n"
            "suites = TLS_AES_128_CCM_SHA256 ; TLS_AES_128_GCM_SHA256;\n"
            "groups=X448;P-521;SecP384r1MLKEM1024;SecP256r1MLKEM768\n"
            "tags_directory=/etc/tags\n"
            "max_handshakes=500\n"
            "max_per_peer=auto\n"
            "workers=3\n"
            "[profile.a]\nlocal=::1\n",
            None,
        )
        self.assertEqual(config.tagDirectory, "/etc/tags")
        self.assertEqual((config.mostHandshakes, config.mostPerPeer), (500, None))
        self.assertEqual(config.workers, 3)
        self.assertEqual(len(config.profiles), 4)
        for profile in config.profiles:
            self.assertEqual(
                profile.handshake.suites, ("TLS_AES_128_CCM_SHA256", "TLS_AES_128_GCM_SHA256")
            )
            self.assertEqual(
                profile.handshake.groups,
                ("X448", "P-521", "SecP384r1MLKEM1024", "SecP256r1MLKEM768"),
            )

    def test_emptyKeyrings(self) -> None:
        """An empty list of keyrings is none, as it is by default."""
        self.assertEqual(parseConfig("[authenticate]\nkeyrings=\n", None), AgentConfig())


class LineTests(ParsingTestCase):
    """Tests for what lines are together."""

    def test_sectionsMerge(self) -> None:
        """A section that is there twice is one."""
        config = parseConfig(
            "[authenticate.client]\nx509.certificate=/c\n[debug]\nloglevel=1\n"
            "[authenticate.client]\nx509.private_key=/k\n",
            None,
        )
        self.assertEqual(config.profiles[0].own.certificates, (CertificateFiles("/c", "/k"),))

    def test_duplicateKey(self) -> None:
        """A key that is there twice is refused, with both lines."""
        mistake = self.mistake("[debug]\nloglevel=0\n[debug]\nloglevel=0\n")
        self.assertEqual(mistake.line, 4)
        self.assertIn("first on line 2", mistake.found)

    def test_keyBeforeSection(self) -> None:
        """
        A key before the first section is refused, with the section it belongs
        in if that is known.
        """
        first, second = self.mistakes("loglevel=1\nfoo=1\n[debug]\n")
        self.assertEqual((first.section, first.key, first.line), ("", "loglevel", 1))
        self.assertIn("[debug]", first.advice)
        self.assertEqual((second.key, second.line), ("foo", 2))
        self.assertIn("in brackets above it", second.advice)

    @settings(deadline=None)
    @given(st.text())
    def test_anyText(self, text: str) -> None:
        """Any text is a configuration or a L{ConfigError}, nothing else."""
        self.anyText(text)

    @settings(deadline=None)
    @given(st.lists(st.sampled_from(HEADERS) | ENTRIES).map("\n".join))
    @example("[debug]\nloglevel=" + "9" * 5000)
    def test_anyLines(self, text: str) -> None:
        """Lines that look like a configuration's are one or a L{ConfigError}."""
        self.anyText(text)

    def anyText(self, text: str) -> None:
        """
        Check that what comes out of a text keeps what the values promise.

        @param text: the configuration.
        """
        try:
            config = parseConfig(text, None)
        except ConfigError as error:
            self.assertNotEqual(error.mistakes, ())
            lines = [mistake.line for mistake in error.mistakes]
            self.assertEqual(lines, sorted(lines))
            self.assertTrue(all(lines))
            self.assertEqual(len(str(error).splitlines()), len(lines))
        else:
            *_, client, server = config.profiles
            self.assertEqual((client.match, server.match), tuple(p.match for p in DEFAULT_PROFILES))
            for profile in config.profiles:
                self.assertEqual(len(profile.match.roles), 1)
                self.assertTrue(profile.handshake.suites and profile.handshake.groups)
                self.assertTrue(profile.trust.stores or profile.trust.pins)
                for files in profile.own.certificates:
                    self.assertTrue(files.certificate.startswith("/"))
                    self.assertTrue(files.privateKey.startswith(("/", "pkcs11:")))


class MistakeTests(ParsingTestCase):
    """Tests for what is refused, and how that is said."""

    def test_allAtOnce(self) -> None:
        """
        All mistakes are reported in one go, in the order of the file, each with
        line, section, key, what was expected, what was found and what to do.
        """
        text = (
            "[debug]\n"
            "loglevel=high\n"
            "[authenticate.client]\n"
            "x509.truststore=ca.pem\n"
            "x509.privatekey=/etc/key.pem\n"
            "[ktlsagent]\n"
            "suites=TLS_AES_256_GCM_SHA348\n"
            "groups=secp256r1\n"
            "[tuning]\n"
        )
        error = self.assertRaises(ConfigError, parseConfig, text, None)
        for mistake in error.mistakes:
            self.assertTrue(mistake.expected and mistake.found and mistake.advice, mistake)
        self.assertEqual(
            str(error).splitlines(),
            [
                (
                    "line 2: [debug] loglevel: expected a whole number, 0 or more, of at most"
                    " 9 digits, found 'high'; write only digits; a comment needs a line of its own"
                ),
                (
                    "line 4: [authenticate.client] x509.truststore: expected an absolute path,"
                    " found 'ca.pem'; write the path from / on, without quotes"
                ),
                (
                    "line 5: [authenticate.client] x509.privatekey: expected a key that is known,"
                    " found an unknown one; did you mean x509.private_key?"
                ),
                (
                    "line 7: [ktlsagent] suites: expected names of suites that are known, with ;"
                    " between them, found 'TLS_AES_256_GCM_SHA348'; did you mean"
                    " TLS_AES_256_GCM_SHA384?"
                ),
                (
                    "line 8: [ktlsagent] groups: expected names of groups that are known, with ;"
                    " between them, found 'secp256r1'; did you mean P-256?"
                ),
                (
                    "line 9: expected a section that is known, found '[tuning]'; known are"
                    " [debug], [authenticate], [authenticate.client], [authenticate.server],"
                    " [ktlsagent], [profile.NAME]"
                ),
            ],
        )

    def test_strangers(self) -> None:
        """
        An unknown section or key has the one that was probably meant named, or
        the section it belongs in, or all that are known; keys below an unknown
        section are passed over.
        """
        for text, advice in (
            ("[authenticate.clients]\nfoo=1\n", "did you mean [authenticate.client]?"),
            (
                "[ktlsagent]\nzz=1\n",
                "known are suites, groups, tags_directory, max_handshakes, max_per_peer, workers",
            ),
            ("[ktlsagents]\n", "did you mean [ktlsagent]?"),
            ("[profiles.a]\n", "did you mean [profile.NAME]?"),
            ("[profile.a]\nlocal_ports=1\n", "did you mean local_port?"),
            ("[authenticate.client]\nlocal=::1\n", "it belongs in [profile.NAME]"),
            ("[debug]\nlog_level=1\n", "did you mean loglevel?"),
            (
                "[authenticate]\nx509.truststore=/a\n",
                "it belongs in [authenticate.client] or [authenticate.server] or [profile.NAME]",
            ),
        ):
            self.assertEqual(self.mistake(text).advice, advice)

    def test_legacySections(self) -> None:
        """
        The sections of old tlshd versions are passed over, as tlshd does today, and each
        key has its name of today in a notice.
        """
        for text, notices in (
            (
                "[main]\ndebug=1\ntlsdebug=2\nlibdebug=2\nnl_debug=3\nkeyrings=a\nfoo=1\n",
                {
                    "[main]": "now write [authenticate] and [debug]",
                    "[main] debug": "now write loglevel in [debug]",
                    "[main] tlsdebug": "now write tls in [debug]",
                    "[main] libdebug": "now write tls in [debug]",
                    "[main] nl_debug": "now write nl in [debug]",
                    "[main] keyrings": "now write keyrings in [authenticate]",
                    "[main] foo": "remove it",
                },
            ),
            (
                "[authentication]\nkeyrings=a\n",
                {
                    "[authentication]": "now write [authenticate]",
                    "[authentication] keyrings": "now write keyrings in [authenticate]",
                },
            ),
        ):
            config = parseConfig(f"{text}[debug]\nloglevel=2\n", None)
            self.assertEqual((config.debugLevel, config.keyrings), (2, ()))
            without = "has no effect, as with tlshd since its version 0.11"
            self.assertEqual(
                config.notices,
                tuple(
                    f"line {line}: {what} {without}: {advice}"
                    for line, (what, advice) in enumerate(notices.items(), 1)
                ),
            )

    def test_dane(self) -> None:
        """The key that tlshd has for certificates in DNS is taken if it asks for nothing."""
        for role in ("client", "server"):
            section = f"[authenticate.{role}]"
            config = parseConfig(f"{section}\ndane=off\n", None)
            self.assertEqual(
                config.notices,
                (f"line 2: {section} dane has no effect: nothing is looked up in DNS",),
            )
            for value in ("on", "require", "", "OFF"):
                mistake = self.mistake(f"{section}\ndane={value}\n")
                self.assertEqual((mistake.key, mistake.found), ("dane", repr(value)))
                self.assertIn("spki_pins", mistake.advice)
        self.assertEqual(self.mistake("[debug]\ndane=off\n").expected, "a key that is known")

    def test_commentBehindAValue(self) -> None:
        """What looks like a comment behind a value is refused, and is the only mistake."""
        for line in (
            "x509.truststore=/etc/ca.pem # ours",
            "x509.truststore=/etc/ca.pem\t#ours",
            "rsa_bits=2048 # enough",
            "deny=subject.CN:mallory # gone",
            "crl_tolerate=none #",
            "x509.truststore= # the system's",
        ):
            mistake = self.mistake(f"[authenticate.client]\n{line}\n")
            self.assertEqual((mistake.line, mistake.key), (2, line.partition("=")[0]))
            self.assertEqual(mistake.expected, "a value without a comment behind it")
            self.assertIn("line of its own", mistake.advice)
        for value, path in (("/etc/a\\s#b.pem", "/etc/a #b.pem"), ("/etc/a#b.pem", "/etc/a#b.pem")):
            config = parseConfig(f"[authenticate.client]\nx509.truststore={value}\n", None)
            self.assertEqual(config.profiles[0].trust.stores, (path,))

    def test_pastedKey(self) -> None:
        """A key that was pasted in is one mistake, however it is protected, and not quoted."""
        head = "[authenticate.client]\nx509.certificate=/a.pem\n"
        for body in (
            "x509.private_key=-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            (
                "x509.private_key=-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"
                "DEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n"
            ),
            "x509.private_key=-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n",
        ):
            mistake = self.mistake(f"{head}{body}")
            self.assertEqual((mistake.line, mistake.key), (3, "x509.private_key"))
            self.assertNotIn("AAAA", str(mistake))

    def test_numbers(self) -> None:
        """Every key of the section [debug] is a number."""
        for key in ("loglevel", "tls", "nl", "delay_done"):
            for value in ("", "-1", "true", "0 # x"):
                mistake = self.mistake(f"[debug]\n{key}={value}\n")
                self.assertEqual((mistake.section, mistake.key), ("debug", key))

    def test_profileNames(self) -> None:
        """A profile's name has up to 32 letters, digits and few other characters."""
        for name in ("a", "A-b_c.0", "x" * 32):
            profile, *_ = parseConfig(f"[profile.{name}]\n", None).profiles
            self.assertEqual(profile.name, f"profile.{name}")
        for header in ("[profile.]", "[profile]", "[profile.a b]", "[profile.é]", "[profile.a/b]"):
            mistake = self.mistake(f"{header}\nloglevel=1\n")
            self.assertEqual((mistake.found, mistake.line), (repr(header), 1))
            self.assertIn("1 to 32 letters, digits, -, _ and .", mistake.advice)

    def test_contradictions(self) -> None:
        """
        What contradicts each other is found wherever it can be read: not in a
        section with mistakes, nor if the sections that it inherits from have any.
        """
        wrong = "[profile.a]\nx509.truststore=none\n"
        for text, lines in (
            (f"{wrong}[profile.b]\nrsa_bits=1\n", [2, 4]),
            (f"{wrong}spki_pins=x\n", [3]),
            (f"{wrong}[debug]\ntls=x\n", [2, 4]),
            (f"{wrong}[ktlsagent]\nsuites=x\n", [4]),
            (f"{wrong}[authenticate.server]\nspki_pins=x\n", [4]),
            (f"[profile.b]\n{wrong}[profile.c]\n[mian]\n", [3, 4, 5]),
        ):
            self.assertEqual([mistake.line for mistake in self.mistakes(text)], lines)

    def test_halfAPair(self) -> None:
        """A certificate without key and a key without certificate are refused."""
        for section in ("authenticate.client", "authenticate.server", "profile.a"):
            for one, other in (
                ("x509.certificate", "x509.private_key"),
                ("x509.private_key", "x509.certificate"),
                ("x509.pq.certificate", "x509.pq.private_key"),
                ("x509.pq.private_key", "x509.pq.certificate"),
            ):
                mistake = self.mistake(f"[{section}]\n{one}=/a\n")
                self.assertEqual((mistake.section, mistake.key, mistake.line), (section, one, 2))
                self.assertEqual(mistake.expected, f"{other} beside it")
                self.assertEqual(mistake.advice, f"add {other} or remove {one}")


class LoadTests(SynchronousTestCase):
    """Tests for finding and reading the file."""

    def setUp(self) -> None:
        """Make an empty directory."""
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.legacy = self.directory / "tlshd.conf"
        self.current = self.directory / "config"
        self.searchOrder = (str(self.legacy), str(self.current))

    def mistake(self, path: Path) -> Mistake:
        """
        Load a file that cannot be read.

        @param path: the file.
        @return: the mistake.
        """
        error: ConfigError = self.assertRaises(ConfigError, loadConfig, str(path))
        self.assertEqual(len(error.mistakes), 1)
        return error.mistakes[0]

    def test_searchOrder(self) -> None:
        """The search order is tlshd's."""
        self.assertEqual(SEARCH_ORDER, ("/etc/tlshd.conf", "/etc/tlshd/config"))

    def test_noFile(self) -> None:
        """No file at all is the defaults."""
        self.assertIsNone(findConfig(self.searchOrder))
        self.assertEqual(loadConfig(None, self.searchOrder), AgentConfig())

    def test_order(self) -> None:
        """The second file is used if it is the only one, else the first."""
        for level, path in ((2, self.current), (1, self.legacy)):
            path.write_text(f"[debug]\nloglevel={level}\n")
            self.assertEqual(findConfig(self.searchOrder), str(path))
            self.assertEqual(
                loadConfig(None, self.searchOrder), AgentConfig(path=str(path), debugLevel=level)
            )

    def test_firstUnreadable(self) -> None:
        """
        A first file that cannot be read is a mistake, not a reason to use the
        second, which nobody may have looked at for years.
        """
        self.legacy.symlink_to(self.directory / "missing")
        self.current.write_text("")
        self.assertRaises(ConfigError, loadConfig, None, self.searchOrder)

    def test_named(self) -> None:
        """A file that is named is read whatever the search would find."""
        self.legacy.write_text("[debug]\nloglevel=1\n")
        named = self.directory / "named"
        named.write_text("")
        self.assertEqual(loadConfig(str(named), self.searchOrder), AgentConfig(path=str(named)))

    def test_othersCanWrite(self) -> None:
        """A file that others could have written decides nothing, even if all is right in it."""
        self.legacy.write_text("")
        self.legacy.chmod(0o622)
        mistake = self.mistake(self.legacy)
        self.assertEqual(mistake.expected, SAFE)
        self.assertIn("tlshd.conf with mode 0622, which others can change", mistake.found)
        self.assertIn("chmod go-w", mistake.advice)

    def test_unreadable(self) -> None:
        """What cannot be read is refused, with its name and what is wrong with it."""
        for path, found in (
            (self.directory / "missing", "no such file or directory"),
            (self.directory, "is a directory"),
            (self.directory / "a\0b", "null"),
        ):
            mistake = self.mistake(path)
            self.assertIn(repr(str(path)), mistake.expected)
            self.assertIn(found, mistake.found)
            self.assertTrue(mistake.advice)

    def test_notUTF8(self) -> None:
        """
        A file that is not UTF-8 is refused, with the line of the first byte
        that is wrong and without the rest.
        """
        self.current.write_bytes(b"[authenticate.client]\n\nx509.crl=/caf\xe9 # ours\n")
        mistake = self.mistake(self.current)
        self.assertEqual((mistake.line, mistake.found), (3, "the byte 0xe9"))
        self.current.write_bytes("[debug]\n".encode("utf-16"))
        self.assertEqual(self.mistake(self.current).found, "UTF-16")

    def test_otherEncodingOfComments(self) -> None:
        """Comments may be in any encoding, and there may be a byte order mark."""
        for data in (
            b"[debug]\n# caf\xe9\n \t# caf\xe9\nloglevel=1\n",
            b"\xef\xbb\xbf[debug]\r\nloglevel=1\r\n",
            b"\xef\xbb\xbf# \xff\n[debug]\nloglevel=1",
        ):
            self.current.write_bytes(data)
            self.assertEqual(loadConfig(str(self.current)).debugLevel, 1)

    def test_UTF8(self) -> None:
        """A path may have any letter in it."""
        self.current.write_bytes("[authenticate.client]\nx509.crl=/é\n".encode())
        self.assertEqual(loadConfig(str(self.current)).profiles[0].trust.crls, ("/é",))

    def test_mistakesOfTheText(self) -> None:
        """The mistakes in a file are those of its text."""
        self.current.write_text("[debug]\nloglevel=x\n")
        self.assertEqual(self.mistake(self.current).key, "loglevel")
