"""What can be wrong with a peer's configuration beyond the types of its values.

Rules kept here:
- all problems are found, not the first alone, and a hint says what would be right;
- what is plain, or lies, or is not authenticated, does not leave this machine.
"""

from __future__ import annotations

import os
import re

from daemon.config import Config, ControlSettings
from learner.attacks.names import parse_attack
from learner.job import DOWNLOAD, check_source, is_code_reference
from learner.schema import Problem
from overlay.addresses import is_loopback, split_address
from overlay.records import MAX_ADDRESSES
from overlay.tickets import is_ticket, read_ticket

# sun_path of a Unix socket holds 108 bytes on Linux, 104 elsewhere, with the closing NUL.
MAX_SOCKET_PATH = 103


def check_one(config: Config, source: str) -> list[Problem]:
    """What one source can get wrong by itself."""
    problems = []
    addresses = [("overlay.advertise", a) for a in config.overlay.advertise]
    addresses += [("overlay.join", a) for a in config.overlay.join if not is_ticket(a)]
    addresses += [("overlay.listen", config.overlay.listen)] if config.overlay.listen else []
    addresses += [("control.tcp", config.control.tcp)] if config.control.tcp else []
    for key, address in addresses:
        try:
            split_address(address)
        except ValueError as error:
            problems.append(Problem(source, key, str(error)))
    for ticket in filter(is_ticket, config.overlay.join):
        try:
            read_ticket(ticket)
        except ValueError as error:
            problems.append(Problem(source, "overlay.join", str(error)))
    if not 0 < config.overlay.certificate_days <= 3650:
        message = "must be more than 0 and at most 3650"
        problems.append(Problem(source, "overlay.certificate_days", message))
    if len(config.overlay.advertise) > MAX_ADDRESSES:
        message = f"holds {MAX_ADDRESSES} addresses at most"
        problems.append(Problem(source, "overlay.advertise", message))
    if config.data.source and (wrong := check_source(config.data.source)):
        problems.append(Problem(source, "data.source", wrong))
    if config.data.part and not _is_part(config.data.part):
        hint = "write k or k/n with 1 ≤ k ≤ n, such as 3/20"
        problems.append(Problem(source, "data.part", f"{config.data.part!r} is no part", hint))
    for reference in config.learner.allow:
        named = is_code_reference(reference) or reference == DOWNLOAD
        if not named and check_source(reference):
            hint = f"write package.module:name, folder:PATH, npz:PATH or {DOWNLOAD}"
            problems.append(Problem(source, "learner.allow", f"{reference!r} is no name", hint))
    if config.lie.attack:
        try:
            parse_attack(config.lie.attack)
        except ValueError as error:
            problems.append(Problem(source, "lie.attack", str(error)))
    if len(config.display_name) > 64 or not config.display_name.isprintable():
        problems.append(Problem(source, "node.name", "must be printable, 64 characters at most"))
    return problems


def check_together(config: Config, source: str) -> list[Problem]:
    """What only the whole configuration can get wrong."""
    problems = _check_control(config.control, source)
    if config.lie.accomplices and not config.lie.attack:
        problems.append(Problem(source, "lie.accomplices", "have no use without lie.attack"))
    addresses = (a for a in config.overlay.join if not is_ticket(a))
    beyond = [a for a in (*config.overlay.advertise, *addresses) if not _is_loopback(a)]
    if config.overlay.insecure:
        problems += _check_plain(config, beyond, source)
    if config.lie.attack and beyond:
        message = f"lies are for loopback only, not for {', '.join(beyond)}"
        hint = "leave lie.attack out, or advertise and join addresses of this machine"
        problems.append(Problem(source, "lie.attack", message, hint))
    if config.lie.attack and not config.learner.enabled:
        problems.append(Problem(source, "lie.attack", "has no use without a learner"))
    if config.overlay.listen:
        host, _ = split_address(config.overlay.listen)
        if host in ("0.0.0.0", "::") and not config.overlay.advertise:
            hint = "name the address others reach, such as --advertise wss://192.0.2.7:7400"
            message = "listening on every address needs overlay.advertise"
            problems.append(Problem(source, "overlay.listen", message, hint))
        if config.lie.attack and not _is_loopback(config.overlay.listen):
            hint = "listen on 127.0.0.1, or leave lie.attack out"
            problems.append(Problem(source, "lie.attack", "lies are for loopback only", hint))
    if len(os.fsencode(config.control_socket)) > MAX_SOCKET_PATH:
        hint = "choose a shorter --data-dir, or set control.socket"
        message = f"{config.control_socket} is too long for a Unix socket"
        problems.append(Problem(source, "control.socket", message, hint))
    return problems


def _check_plain(config: Config, beyond: list[str], source: str) -> list[Problem]:
    """What goes beyond this machine, or needs certificates, cannot be plain."""
    hint = "leave overlay.insecure (--insecure) out: links are then encrypted"
    listen = config.overlay.listen
    if listen and not _is_loopback(listen):
        beyond = [listen, *beyond]
    problems = []
    if beyond:
        message = f"plain links stay on this machine, and {', '.join(beyond)} is not loopback"
        problems.append(Problem(source, "overlay.insecure", message, hint))
    if any(map(is_ticket, config.overlay.join)):
        message = "a ticket is for a network with encrypted links"
        problems.append(Problem(source, "overlay.insecure", message, hint))
    return problems


def _check_control(control: ControlSettings, source: str) -> list[Problem]:
    """Beyond loopback the control port needs TLS, and names to be called by."""
    problems = []
    if bool(control.tls_certificate) != bool(control.tls_key):
        missing = "tls_certificate" if control.tls_key else "tls_key"
        hint = f"set control.{missing} to the PEM file, or leave both out"
        problems.append(
            Problem(source, f"control.{missing}", "certificate and key go together", hint)
        )
    if not control.tcp or _is_loopback(control.tcp):
        return problems
    if not control.tls_certificate and not control.tls_key:
        hint = (
            "write 127.0.0.1:PORT and reach it from elsewhere through an SSH tunnel, or set"
            " control.tls_certificate and control.tls_key"
        )
        problems.append(
            Problem(source, "control.tcp", "must be a loopback address unless it has TLS", hint)
        )
    elif split_address(control.tcp)[0] in ("0.0.0.0", "::") and not control.hosts:
        hint = 'list the names clients use, such as hosts = ["gossip.example.org"]'
        message = "listening on every address needs the names it is reached by"
        problems.append(Problem(source, "control.hosts", message, hint))
    return problems


def _is_loopback(address: str) -> bool:
    try:
        return is_loopback(split_address(address)[0])
    except ValueError:
        return False


def _is_part(text: str) -> bool:
    match = re.fullmatch(r"(\d+)(?:/(\d+))?", text)
    return bool(match) and 1 <= int(match[1]) <= int(match[2] or match[1])  # type: ignore[index]
