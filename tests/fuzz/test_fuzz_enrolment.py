"""A member that enrols others answers an applicant once, or ends the connection."""

from hypothesis import given

from overlay.enrolment import ENROL, Apply, Granted
from tests.fuzz.inputs import TARGETS, check, inputs, quick


@quick
@given(inputs("enrolment"))
def test_whatever_an_applicant_says(data):
    check("enrolment", data)


def test_a_true_application_gets_through():
    kinds = {type(ENROL.decode(data)) for data in TARGETS["enrolment"].corpus}
    assert {Apply, Granted} <= kinds
    for data in TARGETS["enrolment"].corpus:
        check("enrolment", data)
