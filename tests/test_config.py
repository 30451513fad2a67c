"""Tests for L{ktlsagent.config}."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.config import (
    DEFAULT_GROUPS,
    GROUPS,
    SEARCH_ORDER,
    AgentConfig,
    RoleConfig,
    findConfig,
    loadConfig,
    parseConfig,
)
from ktlsagent.errors import ConfigError, Mistake
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES

SAMPLE = Path(__file__).parent.parent / "conf" / "ktlsagent.conf"

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
x509.pq.private_key= pkcs11:token=tlshd

[authenticate.server]
x509.certificate=/etc/tlshd/server.pem
x509.private_key=/etc/tlshd/server.key
"""

# What lines are made of that look like a configuration's.
HEADERS = ["[main]", "[x]", "-----BEGIN X-----", "-----END X-----"]
HEADERS += re.findall(r"^\[.+\]$", IN_USE, re.MULTILINE)
KEYS = ["suites", "groups", "zz", "", *re.findall(r"^([a-z0-9_.]+) ?=", IN_USE, re.MULTILINE)]
VALUES = (
    st.text(alphabet="/a;\\s 0\t\x1bé#:") | st.text() | st.sampled_from([*CIPHER_SUITES, *GROUPS])
)
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
        An empty file is the defaults: the system's trust, no certificate, all
        suites, the hybrid group first.
        """
        role = RoleConfig(truststore=None, crl=None, certificate=None, privateKey=None)
        self.assertEqual(
            parseConfig("", None),
            AgentConfig(
                path=None,
                client=role,
                server=role,
                keyrings=(),
                suites=(
                    "TLS_AES_256_GCM_SHA384",
                    "TLS_AES_128_GCM_SHA256",
                    "TLS_CHACHA20_POLY1305_SHA256",
                    "TLS_AES_128_CCM_SHA256",
                ),
                groups=("X25519MLKEM768", "X25519", "P-256", "P-384"),
                debugLevel=0,
                notices=(),
            ),
        )

    def test_frozen(self) -> None:
        """A configuration and its parts cannot be changed once made."""
        config = parseConfig("", None)
        for value, name in ((config, "debugLevel"), (config.client, "crl")):
            self.assertRaises(FrozenInstanceError, setattr, value, name, None)

    def test_asInstalled(self) -> None:
        """The file that tlshd's package installs is the defaults, without notices."""
        self.assertEqual(parseConfig(AS_INSTALLED, None), AgentConfig())

    def test_inUse(self) -> None:
        """A file that uses all that tlshd knows is understood, path included."""
        config = parseConfig(IN_USE, "/etc/tlshd/config")
        self.assertEqual(
            replace(config, notices=()),
            AgentConfig(
                path="/etc/tlshd/config",
                client=RoleConfig(
                    truststore="/etc/tlshd/ca.pem",
                    crl="/etc/tlshd/ca.crl",
                    certificate="/etc/tlshd/client.pem",
                    privateKey="/etc/tlshd/client.key",
                ),
                server=RoleConfig(
                    certificate="/etc/tlshd/server.pem",
                    privateKey="/etc/tlshd/server.key",
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
            [notice.partition(" has no effect yet: ")[0] for notice in notices],
            [
                "line 3: [debug] tls",
                "line 4: [debug] nl",
                "line 5: [debug] delay_done",
                "line 15: [authenticate.client] x509.pq.certificate",
                "line 16: [authenticate.client] x509.pq.private_key",
            ],
        )
        self.assertIn("answered at once", notices[2])
        self.assertIn("only x509.certificate and x509.private_key are used", notices[3])

    def test_noticeOfPostQuantumAlone(self) -> None:
        """
        Where the ML-DSA pair is the only one, the notice says that the role is
        left without a certificate.
        """
        text = "[authenticate.server]\nx509.pq.certificate=/a\n"
        (notice,) = parseConfig(text, None).notices
        self.assertIn("this role has no certificate", notice)

    def test_ours(self) -> None:
        """
        Suites and groups are taken in the order given, blanks around the names
        and a separator at the end notwithstanding.
        """
        config = parseConfig(
            "[ktlsagent]\n"
            "suites = TLS_AES_128_CCM_SHA256 ; TLS_AES_128_GCM_SHA256;\n"
            "groups=X448;P-521;SecP384r1MLKEM1024;SecP256r1MLKEM768\n",
            None,
        )
        self.assertEqual(config.suites, ("TLS_AES_128_CCM_SHA256", "TLS_AES_128_GCM_SHA256"))
        self.assertEqual(
            config.groups, ("X448", "P-521", "SecP384r1MLKEM1024", "SecP256r1MLKEM768")
        )

    def test_emptyKeyrings(self) -> None:
        """An empty list of keyrings is none, as it is by default."""
        self.assertEqual(parseConfig("[authenticate]\nkeyrings=\n", None), AgentConfig())

    def test_defaultsAreKnown(self) -> None:
        """Every default could also be written into the file."""
        self.assertLessEqual(set(DEFAULT_GROUPS), set(GROUPS))
        text = f"[ktlsagent]\nsuites={';'.join(CIPHER_SUITES)}\ngroups={';'.join(GROUPS)}\n"
        self.assertEqual(parseConfig(text, None), AgentConfig(groups=GROUPS))


class LineTests(ParsingTestCase):
    """Tests for what lines are together."""

    def test_sectionsMerge(self) -> None:
        """A section that is there twice is one."""
        config = parseConfig(
            "[authenticate.client]\nx509.certificate=/c\n[debug]\nloglevel=1\n"
            "[authenticate.client]\nx509.private_key=/k\n",
            None,
        )
        self.assertEqual(config.client, RoleConfig(certificate="/c", privateKey="/k"))

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
            self.assertTrue(config.suites)
            self.assertTrue(config.groups)
            for role in (config.client, config.server):
                self.assertEqual(role.certificate is None, role.privateKey is None)
                for path in (role.truststore, role.crl, role.certificate, role.privateKey):
                    self.assertTrue(path is None or path.startswith("/"))


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
                    " [ktlsagent]"
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
            ("[ktlsagent]\nzz=1\n", "known are suites, groups"),
            ("[debug]\nlog_level=1\n", "did you mean loglevel?"),
            (
                "[authenticate]\nx509.truststore=/a\n",
                "it belongs in [authenticate.client] or [authenticate.server]",
            ),
        ):
            self.assertEqual(self.mistake(text).advice, advice)

    def test_legacySections(self) -> None:
        """The sections of old tlshd versions are refused, each key with its name of today."""
        for text, section, keys in (
            (
                "[main]\ndebug=1\ntlsdebug=2\nlibdebug=2\nnl_debug=3\nkeyrings=a\nfoo=1\n",
                "[authenticate] and [debug]",
                {
                    "debug": "loglevel in [debug]",
                    "tlsdebug": "tls in [debug]",
                    "libdebug": "tls in [debug]",
                    "nl_debug": "nl in [debug]",
                    "keyrings": "keyrings in [authenticate]",
                },
            ),
            (
                "[authentication]\nkeyrings=a\n",
                "[authenticate]",
                {"keyrings": "keyrings in [authenticate]"},
            ),
        ):
            header, *rest = self.mistakes(text)
            self.assertTrue(header.advice.endswith(f"; now write {section}"), header)
            self.assertEqual(
                [(mistake.key, mistake.advice) for mistake in rest],
                [(key, f"now write {today}") for key, today in keys.items()],
            )

    def test_numbers(self) -> None:
        """Every key of the section [debug] is a number."""
        for key in ("loglevel", "tls", "nl", "delay_done"):
            for value in ("", "-1", "true", "0 # x"):
                mistake = self.mistake(f"[debug]\n{key}={value}\n")
                self.assertEqual((mistake.section, mistake.key), ("debug", key))

    def test_paths(self) -> None:
        """
        A path is absolute and has no characters that cannot be seen; what is
        wrong with another is said.
        """
        for value, advice in (
            ("", "remove the line"),
            ("ca.pem", "from / on"),
            ("'/etc/ca.pem'", "without quotes"),
            ("~/ca.pem", "from / on"),
            ("/etc/ca.pem\xa0", "cannot be seen"),
            ("/etc/ca.pem\0", "cannot be seen"),
            (r"/etc/ca.pem\n", "cannot be seen"),
            ("/etc/\u200bca.pem", "cannot be seen"),
        ):
            for key in ("x509.truststore", "x509.crl", "x509.pq.certificate"):
                mistake = self.mistake(f"[authenticate.server]\n{key}={value}\n")
                self.assertEqual(mistake.key, key)
                self.assertIn(advice, mistake.advice)
                self.assertTrue(mistake.found.isprintable())

    def test_pastedKey(self) -> None:
        """What is written in place of a path and may be a key is not repeated."""
        mistake = self.mistake(f"[authenticate.client]\nx509.crl=MC4C{'A' * 60}\n")
        self.assertEqual(mistake.found, "64 characters that begin with 'MC4C'")

    def test_keyInToken(self) -> None:
        """A key in a token is refused, and what may be its PIN is not repeated."""
        mistake = self.mistake(
            "[authenticate.client]\nx509.certificate=/a\n"
            "x509.private_key=pkcs11:token=a%20b?pin-value=1234\n"
        )
        self.assertEqual(mistake.found, "a URL of the scheme 'pkcs11'")
        self.assertIn("cannot be used yet", mistake.advice)
        self.assertNotIn("1234", str(mistake))

    def test_halfAPair(self) -> None:
        """A certificate without key and a key without certificate are refused."""
        for section in ("authenticate.client", "authenticate.server"):
            for one, other in (
                ("x509.certificate", "x509.private_key"),
                ("x509.private_key", "x509.certificate"),
            ):
                mistake = self.mistake(f"[{section}]\n{one}=/a\n")
                self.assertEqual((mistake.section, mistake.key, mistake.line), (section, one, 2))
                self.assertEqual(mistake.expected, f"{other} beside it")
                self.assertEqual(mistake.advice, f"add {other} or remove {one}")

    def test_emptyLists(self) -> None:
        """A list of suites or groups without a name is refused: nothing could be negotiated."""
        for key in ("suites", "groups"):
            for value in ("", r"\s"):
                mistake = self.mistake(f"[ktlsagent]\n{key}={value}\n")
                self.assertEqual(mistake.expected, "at least one name")
            for value in (";", ";;"):
                mistake = self.mistake(f"[ktlsagent]\n{key}={value}\n")
                self.assertEqual(mistake.expected, "a name before each ;")

    def test_listMistakes(self) -> None:
        """A gap, a repetition and an unknown name in one list are three mistakes."""
        mistakes = self.mistakes("[ktlsagent]\ngroups=X25519;;zzz;X25519\n")
        self.assertEqual(
            [mistake.found for mistake in mistakes], ["nothing", "'X25519' 2 times", "'zzz'"]
        )
        self.assertEqual(mistakes[2].advice, f"known are {', '.join(GROUPS)}")

    def test_groupsByOtherNames(self) -> None:
        """The names that others have for a group lead to ours."""
        for name, ours in (
            ("prime256v1", "P-256"),
            ("secp384r1", "P-384"),
            ("p-521", "P-521"),
            ("x25519", "X25519"),
            ("SECP256R1MLKEM768", "SecP256r1MLKEM768"),
        ):
            mistake = self.mistake(f"[ktlsagent]\ngroups={name}\n")
            self.assertEqual(mistake.advice, f"did you mean {ours}?")


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
        self.current.write_bytes(b"[debug]\n# caf\xc3\xa9\n# caf\xe9\nloglevel=1\n")
        mistake = self.mistake(self.current)
        self.assertEqual((mistake.line, mistake.found), (3, "the byte 0xe9"))

    def test_UTF8(self) -> None:
        """A path may have any letter in it."""
        self.current.write_bytes("[authenticate.client]\nx509.crl=/é\n".encode())
        self.assertEqual(loadConfig(str(self.current)).client.crl, "/é")

    def test_mistakesOfTheText(self) -> None:
        """The mistakes in a file are those of its text."""
        self.current.write_text("[debug]\nloglevel=x\n")
        self.assertEqual(self.mistake(self.current).key, "loglevel")


class SampleTests(SynchronousTestCase):
    """Tests for the sample configuration in C{conf/}."""

    def setUp(self) -> None:
        """Read the sample."""
        self.text = SAMPLE.read_text()

    def uncomment(self, prefix: str) -> str:
        """
        Remove the comment signs before keys.

        @param prefix: a pattern for how the keys begin.
        @return: the sample without them.
        """
        return re.sub(rf"^#(?={prefix}[a-z0-9_.]*=)", "", self.text, flags=re.MULTILINE)

    def test_unchanged(self) -> None:
        """The sample as it is installed is the defaults."""
        self.assertEqual(loadConfig(str(SAMPLE)), AgentConfig(path=str(SAMPLE)))

    def test_defaults(self) -> None:
        """The values shown as defaults are the defaults."""
        text = self.uncomment("(?!x509)")
        self.assertEqual(text.count("\nsuites=") + text.count("\ndelay_done="), 2)
        self.assertEqual(parseConfig(text, None), AgentConfig())

    def test_examples(self) -> None:
        """
        With the examples for keys without a default, nothing but these differs
        from the defaults, and each is a path in one directory.
        """
        config = parseConfig(self.uncomment(""), None)
        self.assertEqual(
            config,
            AgentConfig(
                client=RoleConfig(
                    truststore="/etc/ktlsagent/ca.pem",
                    crl="/etc/ktlsagent/ca.crl",
                    certificate="/etc/ktlsagent/client.pem",
                    privateKey="/etc/ktlsagent/client.key",
                ),
                server=RoleConfig(
                    truststore="/etc/ktlsagent/ca.pem",
                    crl="/etc/ktlsagent/ca.crl",
                    certificate="/etc/ktlsagent/server.pem",
                    privateKey="/etc/ktlsagent/server.key",
                ),
                notices=config.notices,
            ),
        )
        self.assertEqual(len(config.notices), 4)

    def test_complete(self) -> None:
        """
        Every key of every section is in the sample: there is no advice for an
        unknown key that names one that is missing.
        """
        for section in re.findall(r"^\[(.+)\]$", self.text, re.MULTILINE):
            error = self.assertRaises(ConfigError, parseConfig, f"[{section}]\n@=1\n", None)
            known = error.mistakes[0].advice.removeprefix("known are ").split(", ")
            part = self.text.partition(f"\n[{section}]\n")[2].partition("\n[")[0]
            self.assertEqual(re.findall(r"^#([a-z0-9_.]+)=", part, re.MULTILINE), known)
