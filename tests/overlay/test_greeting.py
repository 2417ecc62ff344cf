from overlay.greeting import what_keeps_out
from overlay.membership import Membership


def test_nothing_keeps_out_who_was_not_revoked(member):
    assert what_keeps_out(member(1), Membership(member(0))) is None


def test_a_revocation_keeps_out_its_subject_with_and_without_a_certificate(member, network):
    table = Membership(member(0))
    for record in (member(1), network.person(2).record):
        revocation = network.revocation(record.peer_id)
        table.revoke(revocation, 0.0)
        assert what_keeps_out(record, table) == revocation


def test_with_an_issuer_goes_the_stranger_that_it_certified_and_no_member(member, network):
    issuer = network.person(1, "issuer")
    theirs = network.person(2, issuer=issuer).record
    table, acquainted = Membership(member(0)), Membership(member(0))
    acquainted.merge(theirs, 0.0)
    revocation = network.revocation(issuer.id)
    for one in (table, acquainted):
        one.revoke(revocation, 0.0)
    assert what_keeps_out(theirs, table) == revocation
    assert what_keeps_out(theirs, acquainted) is None
