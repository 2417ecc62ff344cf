"""A stand-in for Serf: takes its flags and logs as it does, about processes in a shared folder.

Every agent writes its process id to FAKE_SERF/NAME and looks at the others': who is there and runs
is alive, who has gone or is stopped has failed. `-join` is taken at its word.
"""

import os
import sys
import time


def say(text):
    print(text, flush=True)


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "TZX"
    except FileNotFoundError:
        return False


def look(folder, held):
    """Log what changed since the last look."""
    for name in sorted(os.listdir(folder)):
        with open(f"{folder}/{name}") as file:
            pid = file.read()
        if not pid:
            continue
        alive = is_alive(pid)
        if alive != held.get(name, False):
            held[name] = alive
            if not alive:
                log(f"memberlist: Suspect {name} has failed, no acks received")
            log(f"serf: EventMember{'Join' if alive else 'Failed'}: {name} 127.0.0.1")


def log(text):
    say(f"    2026/01/01 00:00:00 [INFO] {text}")


def main():
    if sys.argv[1:] == ["version"]:
        say("Serf v0.0.0-fake\nAgent Protocol: 5 (Understands back to: 2)")
        return 0
    assert sys.argv[1] == "agent"
    flags = dict(argument.removeprefix("-").split("=", 1) for argument in sys.argv[2:])
    assert flags.keys() - {"join"} == {"node", "bind", "rpc-addr", "profile", "log-level"}
    assert flags["bind"] != flags["rpc-addr"]
    say(f"==> Starting Serf agent...\n==> Serf agent running!\n     Node name: '{flags['node']}'")
    if flags["node"] == os.environ.get("FAKE_SERF_FAILS"):
        say("==> Error joining: connection refused")
        return 1
    folder, held = os.environ["FAKE_SERF"], {}
    with open(f"{folder}/{flags['node']}", "w") as file:
        file.write(str(os.getpid()))
    say("\n==> Log data will now stream in as it occurs:\n")
    while True:
        look(folder, held)
        time.sleep(0.02)


sys.exit(main())
