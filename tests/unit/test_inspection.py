"""The step `inspect`: how many reads it spends on the members' own headers, and what they find."""

from dataclasses import replace
from uuid import uuid4

import pytest

from domain.archives import Summary, inspect
from domain.archives.walking import Walker
from domain.errors.archives import ArchiveAgainstPolicy, ArchiveHeaderMismatch
from domain.errors.requests import Invalid
from domain.inference import PIPELINE
from domain.jobs import Inspection
from domain.pipelines import Done, InputFile, JobInStep, takes_nothing
from domain.settings import Settings
from tests.unit.archive_corpus import Counted, Member, archive, described
from workers import archives

CONFIG = Settings(
    public_url="http://127.0.0.1",
    database_url="postgresql://nobody",
    redis_url="redis://nobody",
    s3_endpoint_url="http://nobody",
    s3_access_key_id="nobody",
    s3_secret_access_key="secret",
    jwt_secret="0123456789abcdef0123456789abcdef",
    ml_service_url="http://nobody",
    ml_service_token="0123456789abcdef",
    flower_password="0123456789abcdef",
    dicom_max_members=0,
)
MEMBERS = [Member(name=b"%02d" % i, data=bytes(200_000)) for i in range(10)]


class Watched:
    def __init__(self) -> None:
        self.checkpoints = 0

    def progress(
        self, done: float, total: float, message: str | None = None, *, part: tuple[int, int] = (1, 1)
    ) -> None: ...

    def checkpoint(self) -> None:
        self.checkpoints += 1


def walked(data: bytes) -> str | None:
    walker = Walker()
    walker.feed(data)
    return walker.seen


class Store:
    """The step at an archive of these bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **changes: int | str) -> None:
        config = {name: getattr(CONFIG, name) for name in CONFIG.__struct_fields__} | changes
        monkeypatch.setattr(archives, "settings", lambda: Settings(**config))
        monkeypatch.setattr(archives.objects, "read_range", lambda key, start, length: self.reader(start, length))
        self.context = Watched()
        self.reader = Counted(b"")

    def inspected(self, data: bytes, inspection: str | None, seen: str | None) -> tuple[Summary, int]:
        """What the summary is, and how many reads the inspection made beyond those of the directory."""
        inspect(usual := Counted(data), len(data))
        self.reader = Counted(data)
        file = InputFile(
            key="k", name="a.zip", size=len(data), content_type="application/zip", kind="zip", local_headers=seen
        )
        params = {} if inspection is None else {"inspection": inspection}
        job = JobInStep(
            id=uuid4(), owner_id=uuid4(), kind="inference", step="inspect", attempt=1, params=params, file=file
        )
        outcome = archives.inspect_archive(job, self.context)
        assert isinstance(outcome, Done)
        (effect,) = outcome.effects
        return effect.keywords["listing"].summary, len(self.reader.reads) - len(usual.reads)  # type: ignore[attr-defined]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    return Store(monkeypatch)


@pytest.mark.parametrize("members", [MEMBERS, [described(one) for one in MEMBERS]], ids=["plain", "described"])
def test_a_deep_inspection_costs_no_read_where_every_header_went_by(store: Store, members: list[Member]) -> None:
    data = archive(*members)
    for inspection in (None, "standard", "deep"):
        summary, reads = store.inspected(data, inspection, walked(data))
        assert (summary.warnings, reads) == ([], 0)


def test_a_deep_inspection_reads_what_did_not_go_by_and_can_be_left_between_two_reads(store: Store) -> None:
    data = archive(*MEMBERS)
    assert store.inspected(data, "standard", None)[1] == 0
    assert store.inspected(data, None, None)[1] == 0  # ordered before there was a choice
    assert store.context.checkpoints == 0
    _, reads = store.inspected(data, "deep", None)
    assert len(MEMBERS) <= reads <= 2 * len(MEMBERS)
    assert store.context.checkpoints == reads


def test_what_earlier_versions_saw_saves_no_read(store: Store) -> None:
    data = archive(*MEMBERS)
    seen = (walked(data) or "").partition("=")[0]
    assert seen.startswith("10+:")
    assert store.inspected(data, "standard", seen)[1] == 0
    assert store.inspected(data, "deep", seen)[1] >= len(MEMBERS)


def test_only_a_deep_inspection_finds_a_contradiction_that_did_not_go_by(store: Store) -> None:
    lying = archive(described(MEMBERS[0], "<III"), replace(MEMBERS[1], local_name=b"xx"), *MEMBERS[2:])
    told = "local_headers: only 0 of 10 went by in the upload; the rest was not compared"
    assert store.inspected(lying, "standard", walked(lying))[0].warnings == [told]
    with pytest.raises(ArchiveHeaderMismatch) as caught:
        store.inspected(lying, "deep", walked(lying))
    assert caught.value.details["entry"] == "01"


@pytest.mark.parametrize("ended", ["unsigned", "junk"])
def test_a_walk_that_ended_early_is_told(store: Store, ended: str) -> None:
    second = described(MEMBERS[1], "<III") if ended == "unsigned" else replace(MEMBERS[1], gap=b"junk")
    data = archive(MEMBERS[0], second, *MEMBERS[2:])
    seen = 1 if ended == "unsigned" else 2
    told = f"local_headers: only {seen} of 10 went by in the upload; the rest was not compared"
    assert store.inspected(data, "standard", walked(data))[0].warnings == [told]
    assert store.inspected(data, "deep", walked(data))[0].warnings == []
    small = archive(Member(), described(Member(name=b"b"), "<III"))  # seen whole in one read
    assert store.inspected(small, "standard", walked(small))[0].warnings == []


def two_readings() -> bytes:
    """A stored member whose data hold a descriptor that fits what came before it, and another member."""
    body = bytes(1000)
    within = described(Member(data=body)).local()[-16 - len(body) :] + Member(name=b"hidden.exe").local()
    return archive(MEMBERS[0], described(Member(name=b"doc.bin", data=within)), MEMBERS[2])


@pytest.mark.parametrize("inspection", ["standard", "deep"])
def test_what_went_by_and_cannot_be_found_again_is_told(store: Store, inspection: str) -> None:
    data = two_readings()
    (warning,) = store.inspected(data, inspection, walked(data))[0].warnings
    assert warning == "two_readings: who reads from the beginning finds other members than the directory names"


def test_two_readings_are_refused_where_the_policy_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    data = two_readings()
    strict = Store(monkeypatch, archive_refuse="two_readings")
    with pytest.raises(ArchiveAgainstPolicy):
        strict.inspected(data, "standard", walked(data))


def test_the_reads_of_a_deep_inspection_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = archive(*MEMBERS)
    few = Store(monkeypatch, archive_deep_reads_on_request=4)
    summary, reads = few.inspected(data, "deep", None)
    assert reads == 4
    assert summary.warnings == ["local_headers: after 4 reads the rest was not compared with the directory"]
    monkeypatch.setattr(archives, "HEADER_SECONDS", 0.0)
    assert Store(monkeypatch).inspected(data, "deep", None)[1] == 0


def test_an_installation_may_look_at_every_archive_more_closely(monkeypatch: pytest.MonkeyPatch) -> None:
    data = archive(*MEMBERS)
    assert Store(monkeypatch, archive_deep_reads=3).inspected(data, "standard", None)[1] == 3


def test_what_can_be_ordered_of_an_inspection() -> None:
    assert PIPELINE.read_params({}, CONFIG)["inspection"] == "standard"
    assert PIPELINE.read_params({"inspection": Inspection.DEEP}, CONFIG)["inspection"] == "deep"
    with pytest.raises(Invalid):
        PIPELINE.read_params({"inspection": "deeper"}, CONFIG)


def test_a_pipeline_without_params_refuses_what_it_would_ignore() -> None:
    assert takes_nothing({}, CONFIG) == {}
    with pytest.raises(Invalid) as caught:
        takes_nothing({"threshold": 0.5}, CONFIG)
    assert caught.value.field == "threshold"
