"""What stands behind the colon of an error: reasons a file is refused for, in Russian.

A reason is told in English where it is found, and stored so with the job; a test finds every one of them in the code.
What a library says of damaged bytes stays as it is, in its ``{error}``.
"""

import re
from functools import cache

ARCHIVES = {
    "the directory holds more entries than it counts": "в оглавлении больше записей, чем в нём указано",
    "the directory holds something after its entries": "в оглавлении что-то стоит после записей",
    "the directory ends in the middle of an entry": "оглавление обрывается посреди записи",
    "the end of the directory is cut": "конец оглавления обрезан",
    "the end of the directory is missing": "нет конца оглавления",
    "the ZIP64 end of the directory is not where its locator says": "конец оглавления ZIP64 не там, где указано",
    "the ZIP64 end of the directory has a wrong length": "у конца оглавления ZIP64 неверная длина",
    "the two ends of the directory, ZIP64 and plain, contradict each other": (
        "два конца оглавления, ZIP64 и обычный, противоречат друг другу"
    ),
    "its directory is compressed or encrypted": "оглавление сжато или зашифровано",
    "its directory is signed": "оглавление подписано",
    "its directory is empty, but {edge} bytes precede it": "оглавление пусто, но перед ним {edge} байт",
    "one end lies within the other's comment": "один конец лежит внутри комментария другого",
    "one directory lies in front of the other": "одно оглавление лежит перед другим",
    "it counts {entries} entries, and {here} in one volume": "записей указано {entries}, а в одном томе {here}",
    "{missing} bytes are missing before the end of the directory": "перед концом оглавления не хватает {missing} байт",
    "{entries} entries cannot fill a directory of {size} bytes": (
        "{entries} записей не могут занять оглавление в {size} байт"
    ),
    "{prefix} bytes precede the archive": "перед архивом {prefix} байт",
    "{length} bytes were asked for at byte {start}, {came} came": (
        "с байта {start} запрошено {length} байт, пришло {came}"
    ),
    "entry {index} of the directory is not there or damaged": "записи {index} в оглавлении нет, или она повреждена",
    "a member reaches into the directory": "файл заходит в оглавление",
    "before the first one of the directory": "перед первым из оглавления",
    "after {name}": "после {name}",
    "the name {name} is marked as UTF-8 and is not": "имя {name} помечено как UTF-8, но это не UTF-8",
    "the Unicode name of {name} is not UTF-8": "имя Unicode у {name} не в UTF-8",
    "the entry {name} has another Unicode name, {other}": "у записи {name} другое имя Unicode, {other}",
    "entries with different Unicode names share one plain name": "у записей с разными именами Unicode одно простое имя",
    "the ZIP64 sizes of {name} are missing": "нет размеров ZIP64 у {name}",
    "{name} has other sizes in its ZIP64 field": "у {name} другие размеры в поле ZIP64",
    "an extra field of {name} comes twice": "дополнительное поле у {name} стоит дважды",
    "{name} unpacks from {packed} to {size} bytes, more than {ratio} times": (
        "{name} распаковывается из {packed} в {size} байт, больше чем в {ratio} раз"
    ),
    "{packed} bytes unpack to {size}, more than {ratio} times": (
        "{packed} байт распаковываются в {size}, больше чем в {ratio} раз"
    ),
    "{packed} bytes of {name} cannot unpack to {size}": "{packed} байт у {name} не могут распаковаться в {size}",
    "{name} is a folder with {size} bytes of content": "{name} — папка, в которой {size} байт содержимого",
    "it is empty": "пусто",
    "control characters": "управляющие знаки",
    "an absolute path": "абсолютный путь",
    "a drive letter": "буква диска",
    "more than {depth} folders deep": "глубже {depth} папок",
    "it names no file": "оно не называет файла",
    "the part {part}": "часть {part}",
    "a part longer than {letters} characters": "часть длиннее {letters} знаков",
    "more than {count} combining marks in a row": "больше {count} надстрочных знаков подряд",
    "longer than {limit} bytes": "длиннее {limit} байт",
    "a pipe": "канал",
    "a device": "устройство",
    "a symbolic link": "символическая ссылка",
    "a socket": "сокет",
    "of an unknown type": "неизвестного вида",
    "is not there": "его нет",
    "differs in encryption": "иначе сказано о шифровании",
    "has another method": "другой метод сжатия",
    "has another name": "другое имя",
    "has another Unicode name": "другое имя Unicode",
    "makes it reach into what follows": "по нему файл заходит в следующее",
    "has another checksum or size": "другая контрольная сумма или размер",
    "has a data descriptor with another checksum or size": "в описателе данных другая контрольная сумма или размер",
    "its local header is not there": "нет локального заголовка",
    "its local header contradicts the directory": "локальный заголовок противоречит оглавлению",
    "{left} of its {size} bytes are missing": "не хватает {left} из {size} байт",
    "its checksum is wrong": "контрольная сумма не сходится",
    "its packed data have no end": "у сжатых данных нет конца",
    "something follows its packed data": "после сжатых данных что-то стоит",
    "it unpacks to more than its {size} bytes": "распаковывается больше чем в {size} байт",
    "it wants a dictionary of {size} bytes, at most {limit} are given": (
        "требует словаря в {size} байт, можно не больше {limit}"
    ),
    "its LZMA properties make no sense": "параметры LZMA бессмысленны",
}
WARNINGS = {
    "{name} is a folder by its attributes only": "{name} — папка только по атрибутам",
    "the extra field of {name} is damaged": "дополнительное поле у {name} повреждено",
    "{name} is read as {way}, and not so by every program": "{name} читается как {way}, и не всякой программой",
    "there are bytes between the members that belong to none": "между файлами есть байты, которые ничьи",
    "at least {idle} bytes between the members belong to none": "между файлами не меньше {idle} байт, которые ничьи",
    "{first} bytes precede the first member, as in a self-extracting archive": (
        "перед первым файлом {first} байт, как в самораспаковывающемся архиве"
    ),
    "Windows cannot write {name}": "Windows не может записать {name}",
    "the folder {name} comes more than once": "папка {name} встречается не один раз",
    "{name} is not written the same way on every system": "{name} записывается в разных системах по-разному",
    "{name} is a path on some systems and a file name on others": "{name} в одних системах путь, в других имя файла",
    "{name} has a code that is no character": "в {name} есть код, который не знак",
    "{name} changes the direction of writing and may look like another": (
        "{name} меняет направление письма и может выглядеть как другое"
    ),
}
RESULTS = {
    "it has no header row": "нет строки заголовков",
    "it is neither XLSX nor JSON, and not text in UTF-8 or Windows-1251": (
        "это ни XLSX, ни JSON, ни текст в UTF-8 или Windows-1251"
    ),
    "it is binary data, not XLSX, CSV or JSON (byte 0x{byte})": (
        "это двоичные данные, не XLSX, CSV или JSON (байт 0x{byte})"
    ),
    "it is text, but not a CSV table: its first line names no columns": (
        "это текст, но не таблица CSV: первая строка не называет столбцов"
    ),
    "it is an old .xls or a password-protected workbook; save it as an unprotected .xlsx": (
        "это старый .xls или книга под паролем; сохраните её как .xlsx без пароля"
    ),
    "it is a PDF document, not XLSX, CSV or JSON": "это документ PDF, не XLSX, CSV или JSON",
    "it is gzip-compressed; send it unpacked": "сжато gzip; отправьте распакованным",
    "it is in UTF-16; save it as UTF-8": "это UTF-16; сохраните как UTF-8",
    "it is HTML or XML, not XLSX, CSV or JSON": "это HTML или XML, не XLSX, CSV или JSON",
    "it has more than {count} columns": "в нём больше {count} столбцов",
    "it has more than {count} rows": "в нём больше {count} строк",
    "it has neither rows nor a column that is known": "в нём нет ни строк, ни известных столбцов",
    "it looks like JSON but is not in valid UTF-8": "похоже на JSON, но не в верном UTF-8",
    "a ZIP archive without xl/workbook.xml is not an XLSX workbook": "архив ZIP без xl/workbook.xml — не книга XLSX",
    "a value is nested more than {depth} deep": "значение вложено глубже {depth}",
    "item {index} of the JSON array is not an object": "элемент {index} массива JSON — не объект",
    "the JSON object has no array under {names}": "в объекте JSON нет массива под {names}",
    "the JSON cannot be read: {error}": "JSON не читается: {error}",
    "damaged JSON at line {line}, column {column}: {error}": "JSON повреждён в строке {line}, знак {column}: {error}",
    "damaged CSV near line {line}: {error}": "CSV повреждён около строки {line}: {error}",
    "the workbook's shared strings hold comments or CDATA": "в общих строках книги комментарии или CDATA",
    "the workbook has a DTD or is not in UTF-8": "в книге есть DTD, или она не в UTF-8",
    "the workbook's XML is damaged: {error}": "XML книги повреждён: {error}",
    "the workbook has no visible worksheet": "в книге нет видимого листа",
    "the XLSX package has more than {count} entries": "в пакете XLSX больше {count} записей",
    "the XLSX package holds {name} twice": "в пакете XLSX {name} стоит дважды",
    "the workbook unpacks to more than {size} MiB": "книга распаковывается больше чем в {size} МиБ",
    "the workbook is packed more than {ratio} to 1": "книга сжата больше чем {ratio} к 1",
    "the workbook is encrypted or packed in an unsupported way": (
        "книга зашифрована или сжата неподдерживаемым способом"
    ),
    "the workbook is packed in an unsupported way: {error}": "книга сжата неподдерживаемым способом: {error}",
    "the workbook is damaged: {error}": "книга повреждена: {error}",
    "{name} spreads over {height} rows and {width} columns; at most {cells} cells are read": (
        "{name} занимает {height} строк и {width} столбцов; читается не больше {cells} ячеек"
    ),
    "the workbook's text comes to more than {size} MiB": "текста в книге больше {size} МиБ",
    "not a readable XLSX workbook (its reader gave up)": "не читаемая книга XLSX (её читатель сдался)",
    "not a readable XLSX workbook ({error})": "не читаемая книга XLSX ({error})",
    "the ZIP archive (XLSX) is damaged or cut short: {error}": "архив ZIP (XLSX) повреждён или обрезан: {error}",
}
SERVICE = {
    "no reason given": "причина не названа",
    "the result is not where the job's results belong": "результат не там, где место результатам задачи",
    "it did not answer others either": "другим он тоже не ответил",
    "the answer is about another job": "ответ о другой задаче",
    "the answer is compressed": "ответ сжат",
    "the answer was cut short": "ответ оборван",
    "the answer is longer than {limit} bytes": "ответ длиннее {limit} байт",
    "the answer is no HTTP: {error}": "ответ — не HTTP: {error}",
    "status {status}": "статус {status}",
    "200, but {error}": "200, но {error}",
}
REASONS = ARCHIVES | WARNINGS | RESULTS | SERVICE
_PLACE = re.compile(r"\\\{(\w+)\\\}")


def in_russian(reason: str) -> str:
    """As it is where it is none of ours: an ML service and a mail server say what they like."""
    if reason in REASONS:
        return REASONS[reason]
    for pattern, russian in _patterns():
        if found := pattern.fullmatch(reason):
            return russian.format_map(found.groupdict())
    return reason


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    """Those with places; the ones that say most come first, so that a wide one takes nothing from another."""
    placed = sorted(
        (one for one in REASONS if "{" in one), key=lambda one: len(re.sub(r"\{\w+\}", "", one)), reverse=True
    )
    return [(re.compile(_PLACE.sub(r"(?P<\1>.+)", re.escape(one)), re.DOTALL), REASONS[one]) for one in placed]
