"""What the exchange posts, over real HTTP: who is let in, what is kept, and the call that comes of it."""

import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import quote_plus

import httpx
import psycopg
import pytest

from domain.recordings.mango import Kind
from stack.exchange import Exchange, inbound_call
from stack.up import Stack, running
from tests.brokers import broker_env
from tests.client import WITH_ADMIN, User
from tests.receiver import until

KEY, SALT = "key-of-the-exchange", "соль"
CALLER, LINE = "79161234567", "74951234567"
BEGAN = datetime(2025, 9, 15, 11, 40, tzinfo=UTC)


@pytest.fixture(scope="module")
def house() -> Iterator[Stack]:
    env = {
        "MANGO_API_KEY": KEY,
        "MANGO_API_SALT": SALT,
        "CALL_SWEEP_SECONDS": "600",  # what is applied here is applied by messages
        **WITH_ADMIN,
        **broker_env(),
    }
    with running(env=env, only=["api", "worker"]) as stack:
        yield stack


@pytest.fixture(scope="module")
def exchange(house: Stack) -> Exchange:
    return Exchange(house.url, KEY, SALT)


@pytest.fixture(scope="module")
def admin(house: Stack) -> Iterator[User]:
    with User.admin(house.url) as user:
        yield user


@pytest.fixture
def rows(house: Stack) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    with psycopg.connect(house.env["DATABASE_URL"], autocommit=True) as connection:
        yield connection


def kept(rows: psycopg.Connection[tuple[Any, ...]], where: str = "TRUE") -> int:
    found = rows.execute(f"SELECT count(*) FROM mango_deliveries WHERE {where}").fetchone()
    assert found is not None
    return int(found[0])


def waiting(rows: psycopg.Connection[tuple[Any, ...]]) -> int:
    return kept(rows, "applied_at IS NULL AND error IS NULL")


def code(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"].startswith("application/problem+json"), answer.text
    return answer.status_code, answer.json()["code"]


def wait_for_call(admin: User, entry_id: str, **wanted: Any) -> dict[str, Any]:
    """The call once its fields are as wanted."""

    def found() -> dict[str, Any] | None:
        items = admin.http.get("/calls", params={"limit": 100}).raise_for_status().json()["items"]
        return next((one for one in items if one["entry_id"] == entry_id and wanted.items() <= one.items()), None)

    until(found)
    listed = found()
    assert listed is not None
    whole: dict[str, Any] = admin.http.get(f"/calls/{listed['id']}").raise_for_status().json()
    return whole


def test_from_the_first_ring_to_the_call(
    exchange: Exchange, admin: User, rows: psycopg.Connection[tuple[Any, ...]]
) -> None:
    sent = list(inbound_call(CALLER, LINE, BEGAN, rings=3, talk_seconds=127))
    for kind, message in reversed(sent):
        answer = exchange.send(kind, message)
        assert (answer.status_code, answer.json()) == (200, {"kind": kind, "repeated": False})
    for kind, message in sent:
        assert exchange.send(kind, message).json() == {"kind": kind, "repeated": True}
    entry = sent[0][1]["entry_id"]
    until(lambda: not waiting(rows))
    call = wait_for_call(admin, entry, outcome="answered")
    assert (call["direction"], call["talk_seconds"], call["reason"]) == ("inbound", 127, "caller_hung_up")
    assert call["from"] == {"number": f"+{CALLER}", "raw": CALLER, "extension": None}
    assert call["line"]["number"] == f"+{LINE}"
    assert call["began_at"] == "2025-09-15T11:40:00Z"
    assert [one["state"] for one in call["legs"][3]["states"]] == ["Appeared", "Connected", "Disconnected"]
    assert call["exchange_recordings"][0]["ready"]


def test_one_url_takes_all_of_them(exchange: Exchange, admin: User) -> None:
    sent = list(inbound_call(CALLER, "74951112233", BEGAN))
    for kind, message in sent:
        answer = exchange.send(kind, message, to_one_url=True)
        assert (answer.status_code, answer.json()) == (200, {"kind": kind, "repeated": False})
    # whichever way it comes, it is the same
    assert exchange.send(*sent[0]).json() == {"kind": "call", "repeated": True}
    other = exchange.send(Kind.OTHER, {"sms": "привет"}, to_one_url=True)
    assert (other.status_code, other.json()["kind"]) == (200, "other")
    wait_for_call(admin, sent[0][1]["entry_id"], outcome="answered")


@pytest.mark.parametrize(
    "text",
    [
        '{"entry_id":"Анна + Пётр = 100%","recording_id":"a&b"}',
        '{"entry_id":"\\u0410\\u043d\\u043d\\u0430 %2B \\/","recording_id":"r"}',
        '{ "entry_id" : "with spaces" ,\n "recording_id" : "r" }',
    ],
)
def test_the_text_is_taken_as_it_was_sent(
    house: Stack, exchange: Exchange, rows: psycopg.Connection[tuple[Any, ...]], text: str
) -> None:
    """As the exchange writes a form, and as httpx does."""
    assert exchange.post("/events/record/added", exchange.form(text)).json() == {
        "kind": "record/added",
        "repeated": False,
    }
    body = "&".join(f"{name}={quote_plus(value)}" for name, value in exchange.form(text).items())
    headers = {"Content-Type": "application/x-www-form-urlencoded; charset=UTF-8", "X-Forwarded-For": "81.88.82.45"}
    url = f"{house.url}/api/v1/mango/events/record/added"
    again = httpx.post(url, content=body, headers=headers, trust_env=False)
    assert again.json() == {"kind": "record/added", "repeated": True}
    raw = [bytes(row[0]) for row in rows.execute("SELECT raw FROM mango_deliveries").fetchall()]
    assert raw.count(text.encode()) == 1


def test_a_wrong_signature_is_refused_and_nothing_kept(
    house: Stack, exchange: Exchange, rows: psycopg.Connection[tuple[Any, ...]]
) -> None:
    before = kept(rows)
    text = '{"entry_id":"forged","recording_id":"r"}'
    good = exchange.form(text)
    for change in (
        {"sign": "0" * 64},
        {"sign": good["sign"].upper()},
        {"json": text + " "},
        {"vpbx_api_key": "another"},
        {"sign": ""},
    ):
        for path in ("/events/record/added", "/webhook"):
            assert code(exchange.post(path, good | change)) == (403, "signature_refused")
    assert code(Exchange(house.url, KEY, "salt").post("/webhook", good | {"sign": ""})) == (403, "signature_refused")
    assert code(exchange.post("/webhook", {})) == (415, "unsupported_media_type")
    assert kept(rows) == before


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("81.88.80.132", 200),
        ("81.88.82.45", 200),
        ("::ffff:81.88.82.36", 200),
        ("81.88.80.134", 403),
        ("2001:db8::1", 403),
        ("10.0.0.1", 403),
        ("nobody", 403),
        ("", 403),  # this machine itself
        # a proxy that appends: what the client claims stands first, whom the proxy saw last
        ("81.88.80.132, 10.0.0.1", 403),
    ],
)
def test_only_the_exchange_is_let_in(house: Stack, source: str, status: int) -> None:
    sender = Exchange(house.url, KEY, SALT, source)
    answer = sender.send(Kind.RECORD_ADDED, {"entry_id": "by-address", "recording_id": f"from {source}"})
    if status == 200:
        assert answer.status_code == 200
    else:
        assert code(answer) == (403, "source_refused")
        russian = httpx.post(
            f"{house.url}/api/v1/mango/webhook", headers={"Accept-Language": "ru"}, trust_env=False
        ).json()
        assert "уведомления не принимаются" in russian["detail"]


def test_bodies_are_limited_and_of_one_kind(house: Stack, exchange: Exchange) -> None:
    long = exchange.form('{"entry_id":"' + "a" * 200_000 + '"}')
    assert code(exchange.post("/webhook", long)) == (413, "body_too_large")
    url, source = f"{house.url}/api/v1/mango/webhook", {"X-Forwarded-For": "81.88.80.132"}
    as_json = httpx.post(url, json=exchange.form("{}"), headers=source, trust_env=False)
    assert code(as_json) == (415, "unsupported_media_type")
    twice = "&".join(f"{name}={quote_plus(value)}" for name, value in [*exchange.form("{}").items(), ("json", "{}")])
    form = {"Content-Type": "application/x-www-form-urlencoded", **source}
    assert code(httpx.post(url, content=twice, headers=form, trust_env=False)) == (400, "malformed_request")
    unknown = httpx.post(f"{house.url}/api/v1/mango/events/sms", headers=form, content="", trust_env=False)
    assert code(unknown) == (404, "not_found")


def test_a_stack_of_its_own_has_an_exchange_of_its_own(house: Stack) -> None:
    env = {**house.env, "MANGO_API_KEY": "", "MANGO_API_SALT": ""}
    with running(env=env, only=["api"], migrate=False) as own:
        message = {"entry_id": "of its own", "recording_id": "r"}
        for key, salt in (("", ""), (KEY, SALT)):
            assert code(Exchange(own.url, key, salt).send(Kind.RECORD_ADDED, message)) == (403, "signature_refused")
        exchange = Exchange(own.url, own.env["MANGO_API_KEY"], own.env["MANGO_API_SALT"])
        assert exchange.send(Kind.RECORD_ADDED, message).status_code == 200


# ---------------------------------------------------------------- calls and recordings


def put_recording(rows: psycopg.Connection[tuple[Any, ...]], user: User, name: str) -> str:
    owner = user.http.get("/auth/me").json()["id"]
    row = rows.execute(
        """INSERT INTO recordings (id, owner_id, object_key, name, content_type, size, sha256, received_at)
           VALUES (gen_random_uuid(), %(owner)s, %(name)s, 'a.mp3', 'audio/mpeg', 3, %(name)s, now()) RETURNING id""",
        {"owner": owner, "name": name},
    ).fetchone()
    assert row is not None
    return str(row[0])


def test_calls_are_read_by_those_whose_recordings_they_are(
    house: Stack, exchange: Exchange, admin: User, rows: psycopg.Connection[tuple[Any, ...]]
) -> None:
    sent = list(inbound_call("79035556677", LINE, BEGAN))
    for kind, message in sent:
        exchange.send(kind, message)
    call = wait_for_call(admin, sent[0][1]["entry_id"], outcome="answered")
    with User(house.url) as anna, User(house.url) as boris:
        recording = put_recording(rows, anna, "anna's")
        path = f"/calls/{call['id']}"
        assert code(anna.http.get(path)) == (404, "not_found")
        # nobody gets to see a call by claiming it
        refused = anna.http.post(f"/recordings/{recording}/link", json={"call_id": call["id"]})
        assert code(refused) == (404, "not_found")
        linked = admin.http.post(f"/recordings/{recording}/link", json={"call_id": call["id"]})
        assert (linked.status_code, linked.json()) == (200, {"recording_id": recording, "call_id": call["id"]})
        mine = anna.http.get(path).raise_for_status().json()
        assert [(one["id"], one["matched_by"]) for one in mine["recordings"]] == [(recording, "hand")]
        assert [one["id"] for one in anna.http.get("/calls").json()["items"]] == [call["id"]]
        assert code(boris.http.get(path)) == (404, "not_found")
        assert boris.http.get("/calls").json() == {"items": [], "next": None}
        assert code(boris.http.post(f"/recordings/{recording}/link", json={"call_id": None})) == (404, "not_found")
        other = put_recording(rows, boris, "boris's")
        admin.http.post(f"/recordings/{other}/link", json={"call_id": call["id"]}).raise_for_status()
        assert len(admin.http.get(path).json()["recordings"]) == 2
        assert len(anna.http.get(path).json()["recordings"]) == 1, "another's recording is not hers to see"
        anna.http.post(f"/recordings/{recording}/link", json={"call_id": None}).raise_for_status()
        assert code(anna.http.get(path)) == (404, "not_found")
    assert httpx.get(f"{house.url}/api/v1/calls", trust_env=False).status_code == 401


def test_calls_come_in_pages_and_can_be_narrowed(exchange: Exchange, admin: User) -> None:
    for number in range(3):
        sent = list(inbound_call("79037778899", LINE, BEGAN, rings=1, talk_seconds=number * 10))
        exchange.send(*next(one for one in sent if one[0] is Kind.SUMMARY))
        wait_for_call(admin, sent[0][1]["entry_id"])
    query: dict[str, str] = {"number": "8 903 777-88-99", "limit": "2"}
    first = admin.http.get("/calls", params=query).json()
    rest = admin.http.get("/calls", params={**query, "after": first["next"]}).json()
    assert [one["talk_seconds"] for one in first["items"] + rest["items"]] == [20, 10, 0]
    assert rest["next"] is None
    for narrow, talks in (
        ({"answered": "false"}, [0]),
        ({"direction": "outbound"}, []),
        ({"since": "2025-09-15T14:40:00+03:00", "until": "2025-09-15T11:40:01Z"}, [20, 10, 0]),
        ({"since": "2025-09-15T11:40:01Z"}, []),
        ({"matched": "true"}, []),
    ):
        answer = admin.http.get("/calls", params={**query, "limit": "100", **narrow}).raise_for_status()
        assert [one["talk_seconds"] for one in answer.json()["items"]] == talks, narrow
    assert code(admin.http.get("/calls", params={"direction": "sideways"})) == (422, "invalid")
    assert code(admin.http.get("/calls", params={"since": "yesterday"})) == (422, "invalid")


def test_the_answer_does_not_wait_for_the_broker(
    house: Stack, exchange: Exchange, rows: psycopg.Connection[tuple[Any, ...]]
) -> None:
    """Nor is anything lost: the tick looks for what was not applied."""
    redis, before = house.processes["redis"], kept(rows)
    redis.stop()
    try:
        began = time.monotonic()
        answer = exchange.send(Kind.RECORD_ADDED, {"entry_id": "without a broker", "recording_id": "r"})
        took = time.monotonic() - began
    finally:
        redis.start()
    assert (answer.status_code, answer.json()["repeated"]) == (200, False)
    assert took < 1.5
    assert kept(rows) == before + 1


# ---------------------------------------------------------------- deaths


def test_whoever_dies_every_notification_is_in_its_call_once() -> None:
    """Killed at once and started again by the stack; the exchange sends again what was not answered."""
    env = {"MANGO_API_KEY": KEY, "MANGO_API_SALT": SALT, "CALL_SWEEP_SECONDS": "1", **broker_env()}
    told = [list(inbound_call(f"7903111220{number}", LINE, BEGAN, rings=2, talk_seconds=30)) for number in range(5)]
    sent = [one for call in told for one in call]
    chance = random.Random(6)
    queue = chance.sample(sent, len(sent)) + chance.sample(sent, len(sent) // 2)
    deaths = {len(queue) // 5: "worker", len(queue) // 2: "api", len(queue) * 4 // 5: "worker"}
    with running(env=env, only=["api", "worker", "beat"]) as mortal:
        exchange = Exchange(mortal.url, KEY, SALT)
        for place, (kind, message) in enumerate(queue):
            if place in deaths:
                mortal.processes[deaths[place]].kill()
            until(partial(_answered, exchange, kind, message), 30)
        with psycopg.connect(mortal.env["DATABASE_URL"], autocommit=True) as rows:
            until(lambda: not waiting(rows), 40)
            assert kept(rows) == kept(rows, "applied_at IS NOT NULL") == len(sent)
            calls = rows.execute("""
                SELECT entry_id, outcome, talk_seconds, exchange_recordings[0]->'ready',
                    (SELECT array_agg(jsonb_array_length(leg->'states') ORDER BY place) FROM call_legs
                     WHERE call_id = calls.id) FROM calls""").fetchall()
        assert {row[0]: row[1:] for row in calls} == {
            call[0][1]["entry_id"]: ("answered", 30, True, [3, 2, 3]) for call in told
        }
        assert sum(mortal.processes[name].deaths for name in ("worker", "api")) == 3


def _answered(exchange: Exchange, kind: Kind, message: dict[str, Any]) -> bool:
    try:
        return exchange.send(kind, message).status_code == 200
    except httpx.TransportError:
        return False
