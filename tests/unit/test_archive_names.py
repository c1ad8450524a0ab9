"""Russian names as six archivers write them: at least 99 % of 10,000 come out right, and the raw bytes are kept."""

import random
import unicodedata
from collections.abc import Callable, Iterator

import pytest

from domain.archives import inspect
from tests.unit.archive_corpus import Counted, Member, archive, unicode_field

SEED = 1147
NAMES = 10_000
WORDS = (  # noqa: SIM905  # a list of words reads better as text
    "акт анализ архив баланс бланк больница бюджет в ведомость вклад война врач время выписка гистология год город "
    "график дата день доверенность договор доклад документ дом ёлка ёмкость жалоба заключение закупка заявка здоровье "
    "зима и исследование итог июль карта касса книга комиссия копия корпус кт лаборатория лёгкие лето лист май "
    "материал мёд медосмотр месяц москва мрт на направление населения наряд новый объём опись отдел отчёт охрана "
    "пациент перечень письмо план подпись поликлиника положение поставка поступление правила приём приказ приложение "
    "проект протокол работа расход расчёт реестр рентген решение россия рубль сентябрь скан снимок согласие список "
    "справка срок статья строка субъект счёт съёмка таблица технический товар торги тысяча указ улица участок учёт "
    "фамилия февраль филиал форма фото характеристика хирургия цена цех часть чек чертёж член шаблон шаг школа щит "
    "объект экспорт эксперт эхо юрист яблоко явка январь яркость подъезд объявление"
).split()
ENDINGS = ["txt", "docx", "xlsx", "pdf", "jpg", "dcm", "zip", "rtf", ""]


def names(rnd: random.Random) -> Iterator[str]:
    while True:
        words = [rnd.choice(WORDS) for _ in range(rnd.choice((1, 1, 2, 2, 3, 4)))]
        style = rnd.randrange(5)
        if style == 0:
            words = [word.upper() for word in words]
        elif style == 1:
            words[0] = words[0].capitalize()
        elif style == 2:
            words = [word.capitalize() for word in words]
        number = rnd.choice(("", "", f" {rnd.randrange(2100)}", f" №{rnd.randrange(99)}", f"-{rnd.randrange(10)}"))
        folder = rnd.choice(("", "", "", f"{rnd.choice(WORDS).capitalize()}/"))
        ending = rnd.choice(ENDINGS)
        yield f"{folder}{rnd.choice((' ', '_', ' ')).join(words)}{number}{'.' * bool(ending)}{ending}"


def info_zip(name: str) -> Member:
    raw = name.encode()
    return Member(name=raw, host=3, flags=0x800, extra=unicode_field(raw, name))


def windows_explorer(name: str) -> Member:
    return Member(name=name.encode("cp866"), host=0, attributes=0x20)


def seven_zip(name: str) -> Member:
    return Member(name=name.encode(), host=0, flags=0 if name.isascii() else 0x800, attributes=0x20)


def pkzip(name: str) -> Member:
    return Member(name=name.upper().encode("cp866"), host=0, attributes=0x20)


def ansi(name: str) -> Member:
    return Member(name=name.encode("cp1251"), host=11, attributes=0x20)


def macos(name: str) -> Member:
    return Member(name=unicodedata.normalize("NFD", name).encode(), host=3)


WRITERS: list[Callable[[str], Member]] = [info_zip, windows_explorer, seven_zip, pkzip, ansi, macos]


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
@pytest.mark.parametrize("most", [1, 3, 30], ids=lambda most: f"{most} in an archive")
def test_russian_names_come_out_right(writer: Callable[[str], Member], most: int) -> None:
    """10,000 names in all: each writer puts its share into archives of at most so many, one name alone included."""
    share = NAMES // len(WRITERS) + 1
    rnd = random.Random(SEED + most)
    source, wrong, done = names(rnd), [], 0
    while done < share:
        wanted: dict[str, str] = {}
        for name in (next(source) for _ in range(rnd.randint(1, most))):
            key = name.casefold().replace("ё", "е")
            if not any(other.startswith(f"{key}/") or key.startswith(f"{other}/") for other in wanted):
                wanted.setdefault(key, name)
        members = [writer(name) for name in wanted.values()]
        data = archive(*members)
        for name, member, entry in zip(
            wanted.values(), members, inspect(Counted(data), len(data)).entries, strict=True
        ):
            assert entry.raw_name == member.name
            expected = name.upper() if writer is pkzip else name
            if unicodedata.normalize("NFC", entry.name) != expected:
                wrong.append((expected, entry.name))
        done += len(members)
    assert len(wrong) <= 0.01 * done, f"{len(wrong)} of {done}: {wrong[:20]}"
