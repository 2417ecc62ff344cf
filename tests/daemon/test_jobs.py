import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.jobs import JobBoard, JobRejected
from daemon.notes import MAX_VERSION, JobOffer, Proof
from learner.job import Data, Job, Model
from learner.schema import as_table

FOREIGN = Job(name="foreign", model=Model("zoo.models:build"))
JOBS = [Job(name=f"job {i}", seed=i) for i in range(4)]


def submit(board, job):
    posted = board.proposal(job)
    assert board.post(posted)
    return posted


def hear(board, version, job):
    posted = board.candidate(JobOffer(version, job.to_json(), Proof()))
    return posted if posted is not None and board.post(posted) else None


def test_an_empty_board_ranks_below_everything():
    board = JobBoard(())
    assert (board.posted, board.rank) == (None, (0, ""))
    assert hear(board, 1, Job()).version == 1


def test_the_higher_version_wins():
    board = JobBoard(())
    hear(board, 2, JOBS[0])
    assert hear(board, 1, JOBS[1]) is None
    assert hear(board, 3, JOBS[1]).job == JOBS[1]
    assert hear(board, 3, JOBS[1]) is None


def test_at_equal_versions_the_higher_digest_wins():
    low, high = sorted(JOBS[:2], key=lambda job: job.digest)
    board = JobBoard(())
    hear(board, 1, low)
    assert hear(board, 1, high).job == high
    assert hear(board, 1, low) is None


@settings(max_examples=30)  # a job is read in a millisecond
@given(
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from(JOBS)), min_size=1, max_size=6),
    st.randoms(),
)
def test_any_order_of_hearing_gives_the_same_board(offers, random):
    boards = []
    for _ in range(2):
        random.shuffle(offers)
        board = JobBoard(())
        for version, job in offers:
            hear(board, version, job)
        boards.append(board.posted)
    assert boards[0] == boards[1]
    assert boards[0].rank == max((version, job.digest) for version, job in offers)


def test_a_submitted_job_outranks_what_is_in_force():
    board = JobBoard(())
    hear(board, 7, JOBS[0])
    posted = submit(board, JOBS[1])
    assert (posted.version, board.posted) == (8, posted)
    assert posted.run == f"8-{JOBS[1].digest}"


def test_the_same_job_submitted_twice_is_two_runs():
    board = JobBoard(())
    assert submit(board, JOBS[0]).run != submit(board, JOBS[0]).run


def test_a_proposal_is_not_in_force_and_loses_against_what_came_meanwhile():
    board = JobBoard(())
    proposed = board.proposal(JOBS[0])
    assert board.posted is None
    hear(board, 2, JOBS[1])
    assert not board.post(proposed)
    assert board.rank == (2, JOBS[1].digest)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"model": 3}', '{"nmae": "x"}', "x" * 20_000])
def test_what_is_no_job_is_rejected_and_changes_nothing(text):
    board = JobBoard(())
    before = submit(board, Job())
    with pytest.raises(JobRejected):
        board.candidate(JobOffer(99, text, Proof()))
    assert board.posted == before


@pytest.mark.parametrize(
    "job", [FOREIGN, Job(data=Data("zoo.data:load")), dataclasses.replace(FOREIGN, seed=3)]
)
def test_a_job_from_the_network_that_names_code_is_taken_but_not_run(job):
    board = JobBoard(("other.models:build",))
    posted = hear(board, 1, job)
    assert board.posted == posted
    assert job.local_names()[0] in posted.refused
    assert "learner.allow" in posted.refused


@pytest.mark.parametrize(
    ("job", "named"),
    [
        (Job(model=Model("os:system")), ["os:system"]),
        (Job(model=Model("zoo:a"), data=Data("zoo:b")), ["zoo:a", "zoo:b"]),
        (Job(data=Data("folder:/home/me/photos")), ["folder:/home/me/photos"]),
        (Job(data=Data("folder:data/../../private")), ["folder:data/../../private"]),
        (Job(data=Data("npz:~/notes.npz")), ["npz:~/notes.npz"]),
        (Job(data=Data("mnist", download=True)), ["mnist-download"]),
    ],
)
def test_code_paths_and_downloads_of_a_foreign_job_need_the_owners_word(job, named):
    assert all(name in hear(JobBoard(()), 1, job).refused for name in named)
    assert hear(JobBoard(tuple(named)), 1, job).refused == ""
    for some in range(len(named)):
        left_out = tuple(name for name in named if name != named[some])
        assert named[some] in hear(JobBoard(left_out), 1, job).refused


def test_what_is_allowed_is_allowed_to_the_letter():
    allowed = ("zoo.models:build", "folder:/data", "mnist-download", "npz:/data/a.npz")
    for name in ("zoo.models:build2", "zoo.models:Build", "zoo:build", "mnist:download"):
        assert hear(JobBoard(allowed), 1, Job(model=Model(name))).refused
    for source in ("folder:/data/", "folder:/data/../etc", "npz:/data", "folder:/"):
        assert hear(JobBoard(allowed), 1, Job(data=Data(source))).refused


def test_mnist_that_is_there_and_torchvisions_networks_need_nobodys_word():
    for job in (Job(data=Data("mnist")), Job(model=Model("torchvision:resnet18"))):
        assert hear(JobBoard(()), 1, job).refused == ""


def text_of(**sections):
    return json.dumps(as_table(Job()) | sections)


@pytest.mark.parametrize(
    "sections",
    [
        {"model": {"name": "../nets:build"}},
        {"model": {"name": "zoo.models:build\n"}},
        {"model": {"name": "zoo.models:os.system"}},
        {"model": {"name": "folder:/etc"}},
        {"model": {"name": "npz:/etc/passwd"}},
        {"data": {"source": "torchvision:CIFAR10"}},
        {"data": {"source": "/etc/passwd"}},
        {"data": {"source": "https://example.org/a.npz"}},
        {"data": {"dir": "/etc"}},
        {"algorithm": {"name": "zoo.algorithms:Mine"}},
        {"optimizer": {"name": "zoo.optim:Mine"}},
        {"gossip": {"topology": "zoo.graphs:mine"}},
        {"gossip": {"network": "/etc/passwd"}},
        {"partition": {"kind": "zoo.split:mine"}},
        {"robust": {"rule": "zoo.rules:mine"}},
        {"robust": {"rule": "byzfl", "aggregator_info": {"name": "os:system"}}},
        {"robust": {"rule": "byzfl", "aggregator_info": {"name": "__class__"}}},
        {"robust": {"aggregator_info": {"name": "TrMean", "parameters": {"f": "os:system"}}}},
        {"robust": {"aggregator_info": {"name": "Median", "module": "os"}}},
        {"robust": {"pre_agg_list": [{"name": "os.system"}]}},
        {"loss": "zoo.losses:mine"},
        {"name": "\x1b[2Jcleared"},
        {"name": "two\nlines"},
        {"data": {"source": "folder:/\x1b]0;title\x07"}},
        {"data": {"classes": ["cat", "d\x1bog"]}},
        {"checkpoint_dir": "/etc"},
    ],
)
def test_where_no_code_or_path_belongs_none_is_taken(sections):
    with pytest.raises(JobRejected):
        JobBoard(("os:system",)).candidate(JobOffer(1, text_of(**sections), Proof()))


# Where a job's text that is not one of a few known words leads.
ASKED_ABOUT = {"model.name", "data.source"}  # to importlib and to files: `local_names`
TO_FACTORIES = {"model.options", "data.options"}  # built-in ones, or those that were allowed
TO_FOLDERS = {"data.classes"}  # of the owner's own folder: `sources` refuses paths
COMPARED_ONLY = {
    "name", "partition.classes", "gossip.edges", "robust.aggregator_info", "robust.pre_agg_list",
}  # fmt: skip


def test_of_every_free_text_in_a_job_it_is_known_where_it_leads():
    tables = {"": Job, **{f.name: type(getattr(Job(), f.name)) for f in dataclasses.fields(Job)}}
    free = {
        f"{name}.{field.name}".removeprefix(".")
        for name, table in tables.items()
        if dataclasses.is_dataclass(table)
        for field in dataclasses.fields(table)
        if "str" in str(field.type) and not field.metadata.get("choices")
    }
    assert free == ASKED_ABOUT | TO_FACTORIES | TO_FOLDERS | COMPARED_ONLY


def test_allowed_code_and_the_owners_own_jobs_run():
    assert hear(JobBoard(("zoo.models:build",)), 1, FOREIGN).refused == ""
    assert submit(JobBoard(()), FOREIGN).refused == ""


@pytest.mark.parametrize("own", [True, False])
def test_a_restored_job_is_trusted_if_it_was_the_owners(own):
    board = JobBoard(())
    board.restore(JobOffer(4, FOREIGN.to_json(), Proof()), own=own)
    assert board.rank == (4, FOREIGN.digest)
    assert (board.posted.refused == "") is own


def test_a_void_job_stays_until_there_is_another_and_loses_against_every_one():
    board = JobBoard(())
    hear(board, 9, JOBS[0])
    board.is_void = True
    assert (board.posted.version, board.rank) == (9, (0, ""))
    assert hear(board, 1, JOBS[1]).job == JOBS[1]
    assert not board.is_void
    assert board.rank == (1, JOBS[1].digest)


def test_after_the_last_version_only_a_void_job_can_be_replaced():
    board = JobBoard(())
    hear(board, MAX_VERSION, JOBS[0])
    with pytest.raises(JobRejected, match="revoke its author"):
        board.proposal(JOBS[1])
    board.is_void = True
    assert submit(board, JOBS[1]).version == 1
