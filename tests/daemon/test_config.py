import re
import tomllib

import pytest

from daemon import config_sources
from daemon.config import Config
from daemon.config_checks import MAX_SOCKET_PATH
from daemon.config_sources import load_config
from learner.schema import SchemaError, commented_toml
from overlay.addresses import is_loopback
from overlay.tickets import Ticket, write_ticket


@pytest.fixture(autouse=True)
def _no_default_file(tmp_path, monkeypatch):
    monkeypatch.setattr(config_sources, "default_config_file", lambda: tmp_path / "absent.toml")
    monkeypatch.setenv("XDG_DATA_HOME", "/tmp/xdg")


@pytest.fixture
def load(tmp_path):
    """load(TOML text or None, environ, flags)"""

    def make(text=None, environ=None, **flags):
        file = None
        if text is not None:
            file = tmp_path / "gossipd.toml"
            file.write_text(text)
        dotted = {key.replace("__", "."): value for key, value in flags.items()}
        return load_config(file, flags=dotted, environ=environ or {})

    return make


def problems_of(load, *args, **flags):
    with pytest.raises(SchemaError) as caught:
        load(*args, **flags)
    return caught.value.problems


def test_nothing_configured_gives_the_defaults(load):
    config = load()
    assert config == Config()
    assert str(config.control_socket) == "/tmp/xdg/gossipd/control.sock"


def test_a_flag_beats_a_variable_beats_the_file_beats_the_default(load):
    file = '[node]\nname = "file"\nlog_level = "debug"\n[learner]\nthreads = 2\nnice = 1\n'
    environ = {"GOSSIPD_NAME": "variable", "GOSSIPD_LEARNER_THREADS": "3"}
    config = load(file, environ, node__name="flag")
    assert config.node.name == "flag"
    assert config.learner.threads == 3
    assert config.learner.nice == 1
    assert config.node.log_level == "debug"
    assert config.overlay.profile == "lan"


@pytest.mark.parametrize(
    ("variable", "text", "read"),
    [
        ("GOSSIPD_DATA_DIR", "/srv/g", lambda c: c.node.data_dir == "/srv/g"),
        ("GOSSIPD_NODE_DATA_DIR", "/srv/g", lambda c: c.node.data_dir == "/srv/g"),
        ("GOSSIPD_LISTEN", "127.0.0.1:9", lambda c: c.overlay.listen == "127.0.0.1:9"),
        ("GOSSIPD_SOCKET", "/run/g", lambda c: str(c.control_socket) == "/run/g"),
        ("GOSSIPD_LEARNER_ENABLED", "false", lambda c: c.learner.enabled is False),
        ("GOSSIPD_OVERLAY_JOIN", "ws://a:1, ws://b:2",
         lambda c: c.overlay.join == ("ws://a:1", "ws://b:2")),
    ],
)  # fmt: skip
def test_every_key_has_a_variable(load, variable, text, read):
    assert read(load(None, {variable: text}))


def test_variables_of_the_client_are_not_the_daemons_business(load):
    load(None, {"GOSSIPD_URL": "x", "GOSSIPD_TIMEOUT": "x", "GOSSIPD_TOKEN_FILE": "x", "HOME": "/"})
    load(None, {"GOSSIPD_CA_FILE": "x"})


def test_every_problem_of_every_source_is_reported_at_once(load, tmp_path):
    file = '[overlay]\nlisten = "nonsense"\nprofil = "lan"\n[learner]\nthreads = -1\n'
    environ = {"GOSSIPD_LISTN": "x", "GOSSIPD_LEARNER_NICE": "lots"}
    found = problems_of(load, file, environ, data__part="5/3", control__tcp="10.0.0.1")
    path = str(tmp_path / "gossipd.toml")
    assert {(p.source, p.key) for p in found} == {
        (path, "overlay.listen"),
        (path, "overlay.profil"),
        (path, "learner.threads"),
        ("environment", "GOSSIPD_LISTN"),
        ("environment", "learner.nice"),
        ("command line", "data.part"),
        ("command line", "control.tcp"),
    }


@pytest.mark.parametrize(
    ("file", "environ", "hint"),
    [
        ("[overlay]\nprofil = 'lan'", {}, "did you mean 'profile'?"),
        ("[ovrlay]\n", {}, "did you mean 'overlay'?"),
        ("", {"GOSSIPD_LISTN": "x"}, "did you mean 'GOSSIPD_LISTEN'?"),
        ("[node]\nlog_level = 'inf'", {}, "did you mean 'info'?"),
    ],
)
def test_an_unknown_word_comes_with_a_suggestion(load, file, environ, hint):
    (problem,) = problems_of(load, file, environ)
    assert problem.hint == hint


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(SchemaError, match=r"no such file .*gossipd init"):
        load_config(tmp_path / "none.toml", flags={}, environ={})


@pytest.mark.parametrize("content", [b"= 3", b"\xff\xfe", b"[node\n"])
def test_a_file_that_is_no_toml_is_a_problem_not_a_crash(tmp_path, content):
    file = tmp_path / "bad.toml"
    file.write_bytes(content)
    with pytest.raises(SchemaError, match=re.escape(str(file))):
        load_config(file, flags={}, environ={})


def test_the_file_may_be_named_by_a_variable_and_a_flag_beats_it(tmp_path):
    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    one.write_text('[node]\nname = "one"')
    two.write_text('[node]\nname = "two"')
    environ = {"GOSSIPD_CONFIG": str(one)}
    assert load_config(None, flags={}, environ=environ).node.name == "one"
    assert load_config(two, flags={}, environ=environ).node.name == "two"


def test_a_value_where_a_table_belongs_is_a_problem_even_when_a_variable_sets_a_key_of_it(load):
    (problem,) = problems_of(load, "overlay = 3", {"GOSSIPD_LISTEN": "127.0.0.1:1"})
    assert (problem.key, problem.hint) == ("overlay", "write [overlay]")


@pytest.mark.parametrize("address", ["192.0.2.7:7400", "0.0.0.0:7400", "[::]:7400", "host:7400"])
def test_plain_links_stay_on_loopback(load, address):
    flags = {"overlay__listen": address, "overlay__advertise": ["wss://192.0.2.7:7400"]}
    (problem,) = problems_of(load, overlay__insecure=True, **flags)
    assert problem.key == "overlay.insecure"
    assert f"{address}, wss://192.0.2.7:7400 is not loopback" in problem.message
    assert "--insecure) out" in problem.hint
    load(**flags)


@pytest.mark.parametrize("key", ["overlay__advertise", "overlay__join"])
def test_plain_links_neither_advertise_nor_join_beyond_loopback(load, key):
    near, far = "ws://127.0.0.1:7400", "ws://192.0.2.7:7400"
    (problem,) = problems_of(load, overlay__insecure=True, **{key: [near, far]})
    assert problem.key == "overlay.insecure"
    assert f", and {far} is not loopback" in problem.message
    load(overlay__insecure=True, **{key: [near]})


TICKET = write_ticket(Ticket("a" * 52, ("wss://192.0.2.7:7400",), bytes(range(16)), 2**40))


def test_tickets_and_addresses_are_joined_through(load):
    join = (TICKET, "wss://192.0.2.7:7400")
    assert load(overlay__join=list(join)).overlay.join == join
    assert load(None, {"GOSSIPD_OVERLAY_JOIN": " ".join(join)}).overlay.join == join


def test_a_damaged_ticket_is_a_problem_that_does_not_quote_it(load):
    damaged = TICKET[:-1] + ("A" if TICKET[-1] != "A" else "B")
    (problem,) = problems_of(load, overlay__join=[damaged])
    assert problem.key == "overlay.join"
    assert "damaged: copy the whole of it once more" in problem.message
    assert TICKET[20:40] not in str(problem)


def test_a_ticket_has_no_use_with_plain_links(load):
    (problem,) = problems_of(load, overlay__insecure=True, overlay__join=[TICKET])
    assert problem.key == "overlay.insecure"
    assert "a ticket is for a network with encrypted links" in problem.message


@pytest.mark.parametrize("days", [0.0, -1.0, 3650.5, float("inf")])
def test_a_certificates_life_is_bounded(load, days):
    (problem,) = problems_of(load, overlay__certificate_days=days)
    assert (problem.key, problem.message) == (
        "overlay.certificate_days", "must be more than 0 and at most 3650",
    )  # fmt: skip


@pytest.mark.parametrize("days", [1e-4, 90.0, 3650.0])
def test_a_certificates_life_can_be_chosen(load, days):
    assert load(overlay__certificate_days=days).overlay.certificate_days == days
    assert load().overlay.certificate_days == 90.0


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:7400", "localhost:7400", "127.8.8.8:1"])
def test_listening_on_loopback_needs_nothing(load, address):
    assert load(overlay__listen=address).overlay.listen == address


@pytest.mark.parametrize("address", ["0.0.0.0:7400", "[::]:7400"])
def test_listening_on_every_address_needs_one_to_advertise(load, address):
    flags = {"overlay__listen": address}
    (problem,) = problems_of(load, **flags)
    assert "--advertise" in problem.hint
    load(**flags, overlay__advertise=["wss://192.0.2.7:7400"])


def test_no_more_addresses_are_advertised_than_a_record_holds(load):
    (problem,) = problems_of(load, overlay__advertise=[f"ws://10.0.0.{i}:1" for i in range(9)])
    assert problem.key == "overlay.advertise"
    assert "8" in problem.message


@pytest.mark.parametrize("address", ["0.0.0.0:1", "192.0.2.7:1", "example.org:1"])
def test_the_control_port_is_loopback_only(load, address):
    (problem,) = problems_of(load, control__tcp=address)
    assert problem.key == "control.tcp"
    assert "SSH" in problem.hint
    assert "control.tls_certificate" in problem.hint


TLS = {"control__tls_certificate": "/etc/c.pem", "control__tls_key": "/etc/k.pem"}


def test_with_tls_the_control_port_may_be_reached_from_elsewhere(load):
    config = load(control__tcp="192.0.2.7:1", **TLS)
    assert [str(path) for path in config.control_tls] == ["/etc/c.pem", "/etc/k.pem"]
    assert load(control__tcp="127.0.0.1:1").control_tls is None


def test_a_control_port_on_every_address_needs_its_names(load):
    (problem,) = problems_of(load, control__tcp="0.0.0.0:1", **TLS)
    assert problem.key == "control.hosts"
    assert "example.org" in problem.hint
    load(control__tcp="0.0.0.0:1", control__hosts=["a.example"], **TLS)


@pytest.mark.parametrize(
    ("given", "missing"), [("tls_certificate", "tls_key"), ("tls_key", "tls_certificate")]
)
@pytest.mark.parametrize("address", ["", "127.0.0.1:1", "192.0.2.7:1"])
def test_certificate_and_key_go_together(load, given, missing, address):
    flags = {"control__tcp": address, f"control__{given}": "/etc/x.pem"}
    (problem,) = problems_of(load, **flags)
    assert problem.key == f"control.{missing}"
    assert missing in problem.hint


def test_the_tokens_are_in_the_data_directory_unless_told(load):
    config = load(node__data_dir="/d")
    assert (str(config.token_file), str(config.read_token_file)) == (
        "/d/control.token", "/d/read.token",
    )  # fmt: skip
    assert str(load(control__read_token_file="/t").read_token_file) == "/t"


@pytest.mark.parametrize(
    "address", ["noport", "http://a:1", "ws://a", "ws://a:99999", "ws://a:1/x"]
)
def test_addresses_are_checked_wherever_they_stand(load, address):
    found = problems_of(load, overlay__join=[address], overlay__advertise=[address])
    assert {p.key for p in found} == {"overlay.join", "overlay.advertise"}
    assert all("wss://host:port" in p.message for p in found)


@pytest.mark.parametrize(
    ("part", "meaning"), [("", (None, None)), ("1", (0, None)), ("3/20", (2, 20)), ("1/1", (0, 1))]
)
def test_a_part_is_counted_from_one(load, part, meaning):
    assert load(data__part=part).own_part == meaning


@pytest.mark.parametrize("part", ["0", "4/3", "0/3", "-1", "a", "1/", "/3", "1/2/3", "1.5"])
def test_a_part_of_the_wrong_form_is_refused(load, part):
    (problem,) = problems_of(load, data__part=part)
    assert "3/20" in problem.hint


def test_a_socket_path_that_the_kernel_would_refuse_is_refused_early(load):
    fits = "/" + "d" * (MAX_SOCKET_PATH - len("/control.sock") - 1)
    assert len(str(load(node__data_dir=fits).control_socket)) == MAX_SOCKET_PATH
    (problem,) = problems_of(load, node__data_dir=fits + "d")
    assert problem.key == "control.socket"
    assert "shorter --data-dir" in problem.hint


@pytest.mark.parametrize("name", ["x" * 65, "two\nlines"])
def test_a_name_is_printable_and_short(load, name):
    (problem,) = problems_of(load, node__name=name)
    assert problem.key == "node.name"


@pytest.mark.parametrize(
    ("flags", "key"),
    [
        ({"data__source": "foldr:/x"}, "data.source"),
        ({"data__source": "folder:"}, "data.source"),
        ({"learner__allow": ["os.system"]}, "learner.allow"),
    ],
)
def test_sources_and_allowed_code_have_a_form(load, flags, key):
    (problem,) = problems_of(load, **flags)
    assert problem.key == key


def test_the_written_configuration_is_the_default_when_uncommented(load):
    KEYS = ("node", "overlay", "control", "learner", "data", "lie")
    text = commented_toml(Config, heading="A heading.\nOf two lines.")
    assert tomllib.loads(text) == {k: {} for k in KEYS}
    bare = re.sub(r"(?m)^# (?=\w+ = )", "", text)
    assert "listen = " in bare
    assert load(bare) == Config()


# Lies, for trials.

LIE = "SignFlipping:scale=3"


@pytest.mark.parametrize("address", [None, "127.0.0.1:0", "[::1]:7400", "localhost:7400"])
def test_on_loopback_a_peer_may_lie(load, address):
    listen = {} if address is None else {"overlay__listen": address}
    config = load(lie__attack=LIE, lie__accomplices=["e", "f"], **listen)
    assert (config.lie.attack, config.lie.accomplices) == (LIE, ("e", "f"))


@pytest.mark.parametrize("address", ["192.0.2.7:7400", "0.0.0.0:7400", "[::]:7400", "host:7400"])
def test_beyond_loopback_no_peer_may_lie(load, address):
    flags = {"overlay__listen": address, "overlay__advertise": ["ws://192.0.2.7:7400"]}
    advertised, listening = problems_of(load, lie__attack=LIE, **flags)
    assert (listening.key, listening.message) == ("lie.attack", "lies are for loopback only")
    assert "127.0.0.1" in listening.hint
    message = "lies are for loopback only, not for ws://192.0.2.7:7400"
    assert (advertised.key, advertised.message) == ("lie.attack", message)
    load(**flags)


@pytest.mark.parametrize("key", ["overlay__advertise", "overlay__join"])
def test_a_liar_neither_advertises_nor_joins_beyond_loopback(load, key):
    near, far = "ws://127.0.0.1:7400", ["ws://192.0.2.7:7400", "ws://example.org:7400"]
    (problem,) = problems_of(load, lie__attack=LIE, **{key: [near, *far]})
    assert problem.key == "lie.attack"
    assert problem.message == f"lies are for loopback only, not for {', '.join(far)}"
    load(lie__attack=LIE, **{key: [near]})
    load(**{key: [near, *far]})


def test_accomplices_without_a_lie_are_refused(load):
    (problem,) = problems_of(load, lie__accomplices=["e"])
    assert (problem.key, problem.message) == (
        "lie.accomplices", "have no use without lie.attack",
    )  # fmt: skip


def test_a_lie_without_a_learner_is_refused(load):
    (problem,) = problems_of(load, lie__attack=LIE, learner__enabled=False)
    assert (problem.key, problem.message) == ("lie.attack", "has no use without a learner")
    load(learner__enabled=False)


def test_where_the_address_and_the_lie_come_from_makes_no_difference(load):
    file = '[overlay]\nlisten = "192.0.2.7:7400"\n'
    (problem,) = problems_of(load, file, {"GOSSIPD_LIE_ATTACK": LIE})
    assert problem.key == "lie.attack"


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        ("SignFliping", "did you mean 'SignFlipping'?"),
        ("SignFlipping:scal=3", "did you mean 'scale'?"),
        ("SignFlipping:scale=lots", "'scale=lots' is no parameter"),
        ("SignFlipping:3", "write NAME:key=number"),
    ],
)
def test_an_attack_that_there_is_not_is_a_problem(load, attack, words):
    (problem,) = problems_of(load, lie__attack=attack)
    assert problem.key == "lie.attack"
    assert words in problem.message


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True),
        ("0.0.0.0", False), ("::", False), ("192.0.2.7", False), ("localhost.example.org", False),
        ("127.0.0.1.example.org", False), ("", False),
    ],
)  # fmt: skip
def test_loopback_is_this_machine_only(host, loopback):
    assert is_loopback(host) is loopback


def test_what_a_job_may_use_can_be_allowed_by_each_of_its_names(load):
    names = ("zoo.models:build", "folder:/data", "npz:/data/a.npz", "mnist-download")
    assert load(f"[learner]\nallow = {list(names)}\n").learner.allow == names
