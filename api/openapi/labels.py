"""The words of the pages, in both languages. What operations and fields say of themselves stays English."""

from typing import Literal

import msgspec

Language = Literal["en", "ru"]


class Labels(msgspec.Struct, frozen=True, kw_only=True):
    language: Language
    contents: str
    document: str
    all_codes: str
    introduction: str
    access: str
    own_access: str
    parameters: str
    body: str
    answers: str
    example: str
    required: str
    schemas: str
    schemas_note: str
    errors: str
    errors_note: str
    of_requests: str
    of_jobs: str
    code: str
    retryable: str
    retryable_note: str
    meaning: str
    back: str
    tags: dict[str, tuple[str, str]]  # heading and description, where they are not those of the document


ENGLISH = Labels(
    language="en",
    contents="Contents",
    document="OpenAPI document",
    all_codes="All error codes",
    introduction="",
    access="needs an access token",
    own_access="needs the ML service's token",
    parameters="Parameters",
    body="Body",
    answers="Answers",
    example="Example",
    required="required",
    schemas="Schemas",
    schemas_note="What the bodies are made of.",
    errors="Error codes",
    errors_note="The `code` of a problem, and of a job that failed. The words in italics are filled in.",
    of_requests="Of requests",
    of_jobs="Of jobs",
    code="Code",
    retryable="retryable",
    retryable_note="the same may succeed later",
    meaning="Meaning",
    back="The API",
    tags={},
)

RUSSIAN = Labels(
    language="ru",
    contents="Содержание",
    document="Документ OpenAPI",
    all_codes="Все коды ошибок",
    introduction="""\
Зарегистрируйтесь, войдите и присылайте токен доступа как `Authorization: Bearer <токен>`. Идентификаторы — UUIDv7, \
время — RFC 3339 в UTC, размеры — в байтах.

Ошибки приходят как `application/problem+json` (RFC 9457): опирайтесь на `code`, он не меняется; `detail` — фраза для \
людей, по-русски, если `Accept-Language` начинается с `ru`. На чужое ответ тот же, что на несуществующее.

Списки приходят страницами: передайте `next` одной страницы как `after` для следующей; null — значит, она последняя. \
В каждом ответе есть `X-Request-ID`; пришлите свой, чтобы найти запрос в журналах.""",
    access="нужен токен доступа",
    own_access="нужен токен ML-сервиса",
    parameters="Параметры",
    body="Тело запроса",
    answers="Ответы",
    example="Пример",
    required="обязательно",
    schemas="Схемы",
    schemas_note="Из чего состоят тела запросов и ответов.",
    errors="Коды ошибок",
    errors_note="Поле `code` ошибки в ответе и у задачи, которая не удалась. Вместо слов курсивом — подробности.",
    of_requests="Запросы",
    of_jobs="Задачи",
    code="Код",
    retryable="можно повторить",
    retryable_note="то же самое может удаться позже",
    meaning="Значение",
    back="API",
    tags={
        "accounts": ("Учётные записи", "Регистрация, вход и сами учётные записи."),
        "files": ("Файлы", "Собственные файлы: загрузка потоком, скачивание частями, временные ссылки."),
        "uploads": ("Возобновляемая загрузка", "Файлы по кускам, с продолжением после любого обрыва: tus 1.0.0."),
        "jobs": ("Задачи", "Работа над файлом: принята сразу, сделана потом, видна всё время."),
        "archives": ("Архивы", "Что внутри архива задачи — только по его оглавлению."),
        "results": ("Результаты", "Что нашёл ML-сервис: строки по страницам и сам файл."),
        "recordings": (
            "Записи разговоров",
            "Почтовые ящики, в которые они приходят, сбор, сведения о них и сам звук.",
        ),
        "webhooks": ("Вебхуки", "Ваши собственные адреса, которым сообщают о задачах: с подписью и повторами."),
        "ML service": ("ML-сервис", "Обратные вызовы ML-сервиса, с его собственным токеном."),
        "system": ("Система", "Живость, готовность и метрики."),
    },
)


def labels(language: str) -> Labels:
    return RUSSIAN if language == "ru" else ENGLISH
