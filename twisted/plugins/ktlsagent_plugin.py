"""Lets twistd find the agent."""

from twisted.application.service import ServiceMaker

ktlsagent = ServiceMaker(
    "ktlsagent", "ktlsagent.tap", "Answers the kernel's TLS handshake requests.", "ktlsagent"
)
