import json
import tomllib

import pytest

from cli import views
from learner.job import Job, Model
from learner.job_file import job_from_toml
from learner.schema import as_table

ROW = {
    "at": 0.0, "round": 7, "loss": 0.5, "accuracy_before": 0.9, "accuracy_after": None,
    "consensus_distance": None, "spectral_gap": None, "staleness": None, "neighbours": 2,
    "missing": 0, "round_s": 0.25, "bytes_sent": 5200,
}  # fmt: skip

NO_GRUDGE = {"refused": {}, "suspicious": {}, "blocked": []}


def lines_of(text):
    """{first word(s): the rest} of aligned pairs."""
    return dict(line.split("  ", 1) for line in text.splitlines())


def test_status_says_who_where_and_how_far(status):
    shown = {key: value.strip() for key, value in lines_of(views.status(status)).items()}
    assert shown["peer"] == "aaaaaaaa (host)"
    assert shown["listens"] == "wss://127.0.0.1:7400"
    assert shown["role"] == "member, certified for 30 days"
    assert shown["links"] == "1"
    assert shown["round"] == "7 of 100"
    assert shown["accuracy"] == "90.0 % before mixing, 93.4 % after"
    assert shown["memory"] == "60.5 MB"
    assert shown["job"] == "digits (version 2, d1)"
    assert "checkpoint" not in shown


def test_status_of_a_joiner_without_network_job_or_figures(status, train_status):
    nothing = {key: None for key in train_status}
    train = nothing | {"state": "idle", "reason": "there is no job yet", "rounds": 0, "samples": 0}
    answer = status | {"network": "", "job": None, "rss_bytes": None, "neighbours": []}
    shown = lines_of(views.status(answer | {"train": train | {"checkpoint_error": ""}}))
    assert shown["network"].strip() == "none yet: still joining"
    assert shown["training"].strip() == "idle (there is no job yet)"
    assert not {"job", "round", "accuracy", "loss", "memory"} & shown.keys()


def test_status_says_how_many_links_are_missing(status):
    answer = status | {"neighbours": ["a", "b"], "wanted": ["b", "c", "d"]}
    assert lines_of(views.status(answer))["links"].strip() == "2 (2 more wanted)"


def test_an_accuracy_that_is_known_after_mixing_only_is_shown_so(status, train_status):
    """A joiner that just started from the average has not trained yet."""
    train = train_status | {"accuracy_before": None}
    assert "– before mixing, 93.4 % after" in views.status(status | {"train": train})


def test_a_checkpoint_that_failed_is_shouted(status, train_status):
    train = train_status | {"checkpoint_error": "disk full", "checkpoint_round": 3}
    assert "FAILED: disk full" in views.status(status | {"train": train})
    train = train_status | {"checkpoint_round": 3}
    assert "round 3" in views.status(status | {"train": train})


def test_members_are_a_table_in_which_this_peer_is_marked(members):
    head, first, second = views.members(members).splitlines()
    assert head.split() == [
        "PEER", "NAME", "STATE", "LINK", "TRAINS", "PART", "ROLE", "CERTIFIED", "ADDRESS",
    ]  # fmt: skip
    assert "host-a (this peer)" in first
    assert first.split()[-5:] == ["1", "member", "30", "days", "wss://127.0.0.1:1"]
    assert second.split()[-5:] == ["–", "member", "30", "days", "wss://127.0.0.1:1"]
    assert head.index("ADDRESS") == first.index("wss://") == second.index("wss://")


def test_members_of_a_plain_network_have_no_role_and_an_expired_certificate_is_shouted(members):
    for member in members:
        member |= {"role": None, "expires_at": None}
    members[1] |= {"role": "issuer", "expires_at": 1.0}
    _, first, second = views.members(members).splitlines()
    assert first.split()[-4:-1] == ["1", "–", "–"]
    assert second.split()[-3:-1] == ["issuer", "EXPIRED"]


def test_a_plain_daemon_is_shouted_in_its_status(status):
    plain = {"encrypted": False, "role": None, "certificate_expires_at": None}
    shown = lines_of(views.status(status | plain))
    words = "//127.0.0.1:7400  (PLAIN: neither encrypted nor authenticated)"
    assert shown["listens"].strip().endswith(words)
    assert "role" not in shown


def test_who_was_revoked_reads_so_in_its_status(status):
    shown = lines_of(views.status(status | {"revoked": "lost laptop"}))
    assert shown["role"].strip() == "REVOKED: lost laptop; it comes back with a new ticket"


def test_an_expired_certificate_is_shouted_in_the_status(status):
    shown = lines_of(views.status(status | {"certificate_expires_at": 1.0}))
    assert shown["role"].strip() == "member, certified for EXPIRED"


def test_topology_leaves_out_what_is_not_known(topology_answer):
    answer = topology_answer | {"connected": False, "diameter": None, "spectral_gap": None}
    shown = lines_of(views.topology(answer).partition("\n\n")[0])
    assert shown["connected"].strip() == "NO"
    assert shown["degree"].strip() == "1 to 2"
    assert not {"diameter", "spectral gap", "round"} & shown.keys()


def test_topology_shows_whom_this_peer_mixes_in_and_with_what_weight(topology_answer):
    rows = [line.split() for line in views.topology(topology_answer).splitlines()[-3:]]
    assert rows == [["aaaaaaaa", "ann", "0.25"], ["cccccccc", "0.5"], ["(this", "peer)", "0.25"]]


def test_topology_says_what_repeats(topology_answer):
    answer = topology_answer | {"period": 5, "period_gap": 1.0}
    shown = lines_of(views.topology(answer).partition("\n\n")[0])
    assert shown["round"].strip() == "4 (the graphs repeat after 5)"
    assert shown["gap of a period"].split() == ["1", "a", "round"]


def test_metrics_are_a_table_with_dashes():
    text = views.metrics({"history": [ROW, ROW | {"round": 8, "accuracy_after": 0.95}]})
    head, first, second = text.splitlines()
    assert head.split()[:3] == ["ROUND", "TIME", "LOSS"]
    assert first.split()[0] == "7"
    assert "–" in first
    assert "95.0 %" in second
    assert second.endswith("5.2 kB")
    assert views.metrics({"history": []}) == "no rounds yet"


def test_train_status_lists_the_neighbours(train_status):
    neighbours = {"b" * 52: {"state": "training", "round": 6, "samples": 287}}
    text = views.train(train_status | {"neighbour_states": neighbours, "trust": NO_GRUDGE})
    assert text.splitlines()[-1].split() == ["bbbbbbbb", "training", "6", "287"]
    assert "NEIGHBOUR" not in views.train(
        train_status | {"neighbour_states": {}, "trust": NO_GRUDGE}
    )


@pytest.mark.parametrize(
    "job",
    [
        Job(),
        Job(name='quoted "and" \\ backslashed', model=Model("mlp", {"hidden": [8, 8]})),
        Job(model=Model("a.b:c", {"text": "two\nlines\x7f"})),
        Job(model=Model("a.b:c", {"x y": 1e-5, "on": True, "deep": {"er": ["z"]}})),
    ],
)
def test_a_shown_job_can_be_submitted_again(job):
    answer = {
        "version": 2,
        "digest": "d",
        "refused": "",
        "author": "abcdefghij" * 5,
        "job": json.loads(json.dumps(as_table(job))),
    }
    text = views.job(answer)
    assert text.startswith("# version 2, digest d, submitted by abcdefgh\n")
    assert job_from_toml(text, source="shown") == job


def test_a_job_that_is_not_run_here_says_why():
    answer = {
        "version": 2,
        "digest": "d",
        "refused": "not allowed",
        "author": None,
        "job": json.loads(json.dumps(as_table(Job()))),
    }
    assert "# NOT RUN HERE: not allowed" in views.job(answer)
    tomllib.loads(views.job(answer))


def test_without_a_job_the_way_to_one_is_shown():
    assert "gossipctl job submit" in views.job({"version": 0, "job": None})


def test_events_are_one_line_each():
    item = {"seq": 3, "at": 0.0, "kind": "link.up", "data": {"peer": "b" * 52, "gap": 0.123456}}
    text = views.events({"events": [item]})
    assert text.endswith("3  link.up            peer=bbbbbbbb gap=0.1235")
    assert views.events({"events": []}) == "no events"
    assert views.event(item | {"data": {}}).endswith("link.up")


def test_anything_else_is_a_line_a_field():
    assert views.plain({"stopping": True, "size_bytes": 3}).splitlines() == [
        "stopping    True",
        "size bytes  3",
    ]
    assert views.plain(3) == "3"


# Whom this peer trusts.

ADVICE = "3 neighbours bear 0 liars, not 1: …"


@pytest.mark.parametrize(
    ("robust", "shown"),
    [
        (
            {"rule": "nna", "liars": 1, "tolerated": 2, "advice": ""},
            "1 at the most by the job, 2 tolerated here (rule nna)",
        ),
        (
            {"rule": "median", "liars": 1, "tolerated": 0, "advice": ADVICE},
            "1 at the most by the job, 0 tolerated here (rule median)"
            f" – TOO FEW NEIGHBOURS: {ADVICE}",
        ),
        (
            {"rule": "mean", "liars": 0, "tolerated": 0, "advice": ""},
            "none: every neighbour is believed (plain averaging)",
        ),
    ],
)
def test_topology_says_how_many_lying_neighbours_are_borne(topology_answer, robust, shown):
    text = views.topology(topology_answer | {"robust": robust})
    assert lines_of(text.partition("\n\n")[0])["liars"].strip() == shown


def test_where_nothing_is_mixed_nothing_is_said_of_liars(topology_answer):
    for changes in ({"robust": None}, {"graph": "overlay"}):
        text = views.topology(topology_answer | changes)
        assert "liars" not in text


def test_train_status_lists_what_is_held_against_whom(train_status):
    a, b, c = ("a" * 52, "b" * 52, "c" * 52)
    trust = {
        "refused": {c: {"layout": 3, "not finite": 1}},
        "suspicious": {b: 27, c: 20},
        "blocked": [c, a],
    }
    text = views.train(train_status | {"neighbour_states": {}, "trust": trust})
    head, *rows = text.split("\n\n")[-1].splitlines()
    assert head.split() == ["PEER", "HELD", "AGAINST", "IT"]
    assert [row.split(None, 1) for row in rows] == [
        ["aaaaaaaa", "blocked"],
        ["bbbbbbbb", "dropped by the rule for 27 rounds"],
        [
            "cccccccc",
            "3 refused: layout, 1 refused: not finite, dropped by the rule for 20 rounds, blocked",
        ],
    ]
    assert "HELD" not in views.train(train_status | {"neighbour_states": {}, "trust": NO_GRUDGE})
