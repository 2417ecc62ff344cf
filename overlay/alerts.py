"""What went wrong with TLS, in words for people."""

from __future__ import annotations

import ssl

# X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED of OpenSSL.
_OUTDATED = (9, 10)
_ALERTS = {
    "TLSV1_ALERT_UNKNOWN_CA": "this peer's certificate is of another network than that peer's",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "this peer's certificate has expired: enrol with a ticket",
    "SSLV3_ALERT_BAD_CERTIFICATE": "that peer refuses this peer's certificate",
    "WRONG_VERSION_NUMBER": "that peer speaks no TLS: is it one of plain links (--insecure)?",
    "HTTP_REQUEST": "that peer speaks no TLS: is it one of plain links (--insecure)?",
}


def alert_of(error: BaseException) -> str:
    """Why TLS failed, in words, '' if it did not (RFC 8446, section 6: the alerts)."""
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        if cause.verify_code in _OUTDATED:
            return "that peer's certificate has expired"
        return f"that peer's certificate is not of this network ({cause.verify_message})"
    if not isinstance(cause, ssl.SSLError) or not cause.reason:
        return ""
    reason = _ALERTS.get(cause.reason)
    return reason or f"no TLS link: {cause.reason.lower().replace('_', ' ')}"
