"""The De-Mail connector's proof that all works: mutual TLS to the gateway, and the domains it knows."""

from demail_hw.gateway.connector import ProbeResult, probe, probe_over
from demail_hw.gateway.findings import Finding

__all__ = ["Finding", "ProbeResult", "probe", "probe_over"]
