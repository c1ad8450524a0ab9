"""Every error Millrace names, in one tree.

A class's docstring is its message (``{placeholders}`` are filled from the keyword arguments it is raised with), ``ru``
is the same sentence in Russian, ``code`` is the stable word clients match on, ``status`` the HTTP status it maps to and
``retryable`` whether the same request or job could succeed later without being changed. One handler in ``api`` turns
them into RFC 9457 problems; the engine writes the same ``code`` into a failed job. ``docs/errors.md`` is made from it.
"""

import re
from collections.abc import Iterator
from string import Formatter
from typing import Any, ClassVar

# What becomes of an upload that ShuttingDown or UploadTooSlow cuts off
NOTHING_KEPT = "nothing was kept, send it again"
BEGINNING_KEPT = "what came is kept, ask where it stands and go on from there"

# What the errors below speak of; everything else in their details is data and stays as it is.
_RUSSIAN = {
    "account": "учётная запись",
    "archive in this job": "архив в этой задаче",
    "archive listing": "опись архива",
    "entry in this archive": "запись в этом архиве",
    "bytes": "байт",
    "call": "звонок",
    "delivery": "доставка",
    "file": "файл",
    "files": "файлов",
    "job": "задача",
    NOTHING_KEPT: "ничего не сохранено, отправьте ещё раз",
    BEGINNING_KEPT: "то, что пришло, сохранено; узнайте, где она стоит, и продолжайте оттуда",
    "mailbox": "почтовый ящик",
    "recording": "запись разговора",
    "results": "результаты",
    "submission": "отправка в ML-сервис",
    "upload": "загрузка",
    "webhook": "вебхук",
}


def _in_russian(value: Any) -> Any:
    return _RUSSIAN.get(value, value) if isinstance(value, str) else value


class MillraceError(Exception):
    """Something went wrong on our side; the request id finds it in the logs."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    ru: ClassVar[str] = "Внутренняя ошибка; по идентификатору запроса её можно найти в журнале."

    def __init__(self, *, field: str | None = None, retry_after: float | None = None, **details: Any) -> None:
        """``field`` names the offending input, ``retry_after`` is in seconds, the rest fills the message."""
        super().__init__(details)
        self.field = field
        self.retry_after = retry_after
        self.details = details

    def message(self, language: str = "en") -> str:
        details = {"field": self.field, **self.details}
        if language == "ru":
            return type(self).ru.format_map({name: _in_russian(value) for name, value in details.items()})
        return (type(self).__doc__ or "").strip().format_map(details)

    def __str__(self) -> str:
        return self.message()


# ---------------------------------------------------------------- requests


class NotAuthenticated(MillraceError):
    """A valid access token is needed: send it as `Authorization: Bearer <token>`."""

    code, status = "not_authenticated", 401
    ru = "Нужен действующий токен доступа: пришлите его как `Authorization: Bearer <токен>`."


class WrongCredentials(MillraceError):
    """The username or the password is wrong."""

    code, status = "wrong_credentials", 401
    ru = "Неверное имя пользователя или пароль."


class Forbidden(MillraceError):
    """This needs the role `{role}`."""

    code, status = "forbidden", 403
    ru = "Для этого нужна роль `{role}`."


class CrossSiteRequest(MillraceError):
    """The session cookie is taken from this site's own pages only; others send `Authorization: Bearer <token>`."""

    code, status = "cross_site_request", 403
    ru = "Cookie сеанса принимается только от страниц этого же сайта; другие присылают `Authorization: Bearer <токен>`."


class NotFound(MillraceError):
    """There is no such {what}."""

    code, status = "not_found", 404
    ru = "Не найдено: {what}."


class MethodNotAllowed(MillraceError):
    """This path does not take {method}."""

    code, status = "method_not_allowed", 405
    ru = "Этот путь не принимает {method}."


class MethodUnknown(MillraceError):
    """This is no method of HTTP that is known here."""

    code, status = "method_unknown", 501
    ru = "Такой метод HTTP здесь не известен."


class Invalid(MillraceError):
    """{reason}"""

    code, status = "invalid", 422
    ru = "{reason}"


class MalformedRequest(MillraceError):
    """The request body cannot be read: {reason}"""

    code, status = "malformed_request", 400
    ru = "Тело запроса не читается: {reason}"


class UnknownProfile(MillraceError):
    """Unknown profile {profile!r}; known profiles: {known}."""

    code, status = "unknown_profile", 422
    ru = "Неизвестный профиль {profile!r}; известные профили: {known}."


class Conflict(MillraceError):
    """{reason}"""

    code, status = "conflict", 409
    ru = "{reason}"


class AlreadyTaken(MillraceError):
    """This {field} is already taken."""

    code, status = "already_taken", 409
    ru = "Значение поля {field} уже занято."


class AccountInUse(MillraceError):
    """The account still owns {what}; remove them first."""

    code, status = "account_in_use", 409
    ru = "У учётной записи ещё есть данные ({what}); сначала удалите их."


class LastAdmin(MillraceError):
    """This is the last admin; give the role to another account first."""

    code, status = "last_admin", 409
    ru = "Это последний администратор; сначала дайте эту роль другой учётной записи."


class FileInUse(MillraceError):
    """A job works or has worked on this file; delete the job first."""

    code, status = "file_in_use", 409
    ru = "С этим файлом работает или работала задача; сначала удалите её."


class JobNotReady(MillraceError):
    """The job has no {what} yet; its status is `{status}`."""

    code, status = "job_not_ready", 409
    ru = "У задачи ещё нет того, что запрошено ({what}); её состояние — `{status}`."


class JobIsFinal(MillraceError):
    """The job has already ended as `{status}`."""

    code, status = "job_is_final", 409
    ru = "Задача уже завершена: `{status}`."


class CompletionConflict(MillraceError):
    """The job already has another outcome (`{status}`); this completion was not applied."""

    code, status = "completion_conflict", 409
    ru = "У задачи уже другой исход (`{status}`); это завершение не применено."


class IdempotencyMismatch(MillraceError):
    """This Idempotency-Key was sent before with another request body; a new request needs a key of its own."""

    code, status = "idempotency_mismatch", 422
    ru = "Этот Idempotency-Key уже приходил с другим телом запроса; новому запросу нужен свой ключ."


class IdempotencyInFlight(MillraceError):
    """The first request with this Idempotency-Key is still being answered; try again in a moment."""

    code, status, retryable = "idempotency_in_flight", 409, True
    ru = "Первый запрос с этим Idempotency-Key ещё обрабатывается; повторите чуть позже."


class BodyTooLarge(MillraceError):
    """The body is larger than the limit of {limit} bytes."""

    code, status = "body_too_large", 413
    ru = "Тело запроса больше предела в {limit} байт."


class StorageQuotaExceeded(MillraceError):
    """All your files together may come to {limit} in {unit}; {used} are taken, and this asks for {asked} more."""

    # not 507: what is full is the caller's share, and only the caller can make room in it
    code, status, retryable = "storage_quota_exceeded", 413, True
    ru = "Всем вашим файлам вместе отведено {limit} ({unit}): занято {used}, а нужно ещё {asked}."


class UploadIncomplete(MillraceError):
    """The upload is not what was announced: {reason}"""

    code, status = "upload_incomplete", 409
    ru = "Загружено не то, что объявлено: {reason}"


class UploadTooSlow(MillraceError):
    """Too little came for {seconds} s; {kept}."""

    code, status, retryable = "upload_too_slow", 408, True
    ru = "Слишком мало данных за {seconds} с: {kept}."


class DigestMismatch(MillraceError):
    """What came is not what {field} announced ({algorithm}); nothing was kept, send it again."""

    code, status, retryable = "digest_mismatch", 422, True
    ru = "Пришло не то, что объявлено в {field} ({algorithm}); ничего не сохранено, пришлите ещё раз."


class UnsupportedMedia(MillraceError):
    """This endpoint takes {expected}, not {received!r}."""

    code, status = "unsupported_media_type", 415
    ru = "Здесь принимается {expected}, а не {received!r}."


class EncodingUnsupported(MillraceError):
    """The body is sent as {encoding!r}; send it as it is, without `Content-Encoding`."""

    code, status = "content_encoding_unsupported", 415
    ru = "Тело прислано в кодировке {encoding!r}; присылайте его как есть, без `Content-Encoding`."


class ClientGone(MillraceError):
    """The client went away in the middle of the body; nothing was kept."""

    code, status, retryable = "client_gone", 400, True
    ru = "Клиент отключился, не передав тело целиком; ничего не сохранено."


class UploadHeader(MillraceError):
    """The header {field} cannot be taken: {reason}."""

    code, status = "upload_header", 400
    ru = "Заголовок {field} не принят: {reason}."


class UploadIsFinal(MillraceError):
    """A final upload is put together of its partial ones and takes no bytes."""

    code, status = "upload_is_final", 403
    ru = "Итоговая загрузка складывается из частичных и байтов не принимает."


class UploadOffsetMismatch(MillraceError):
    """The upload stands at {offset} bytes; go on from there."""

    code, status = "upload_offset_mismatch", 409
    ru = "Загрузка стоит на байте {offset}; продолжайте с него."


class UploadExpired(MillraceError):
    """The upload has expired; begin a new one."""

    code, status = "upload_expired", 410
    ru = "Срок загрузки истёк; начните новую."


class TusVersionUnsupported(MillraceError):
    """The header Tus-Resumable must be {supported}."""

    code, status = "tus_version_unsupported", 412
    ru = "Заголовок Tus-Resumable должен быть {supported}."


class UploadLocked(MillraceError):
    """Another request is at work on this upload; ask for its offset and try again."""

    code, status, retryable = "upload_locked", 423, True
    ru = "С этой загрузкой работает другой запрос; узнайте, где она стоит, и повторите."


class ChecksumMismatch(MillraceError):
    """The bytes do not have the {algorithm} that Upload-Checksum says; none of them was kept."""

    code, status, retryable = "checksum_mismatch", 460, True
    ru = "{algorithm} пришедших байтов не тот, что в Upload-Checksum; ничего не сохранено."


class RangeNotSatisfiable(MillraceError):
    """The requested range lies outside the {size} bytes there are."""

    code, status = "range_not_satisfiable", 416
    ru = "Запрошенный диапазон лежит за пределами файла в {size} байт."


class TooManyUploads(MillraceError):
    """Only {limit} of your uploads may be under way at once; end one of them first."""

    code, status, retryable = "too_many_uploads", 429, True
    ru = "Одновременно можно вести не больше {limit} загрузок; сначала завершите одну из них."


class RateLimited(MillraceError):
    """Too many requests; try again in {seconds} s."""

    code, status, retryable = "rate_limited", 429, True
    ru = "Слишком много запросов; повторите через {seconds} с."


class TooManyStreams(MillraceError):
    """{limit} streams of this account are open already; close one first."""

    code, status, retryable = "too_many_streams", 429, True
    ru = "Открыто уже {limit} потоков этой учётной записи; сначала закройте один."


class UrlRefused(MillraceError):
    """This URL may not be called: {reason}."""

    code, status = "url_refused", 422
    ru = "Этот адрес нельзя вызывать: {reason}."


class HostUnknown(UrlRefused):
    """The name {host!r} has no address."""

    code, status, retryable = "host_unknown", 422, True
    ru = "У имени {host!r} нет адреса."


class TooManyWebhooks(MillraceError):
    """The account has {limit} webhooks already; delete one first."""

    code, status = "too_many_webhooks", 409
    ru = "У учётной записи уже {limit} вебхуков; сначала удалите один."


class MailboxInsecure(MillraceError):
    """A mailbox without TLS is not allowed in this installation (MAILBOX_PLAINTEXT)."""

    code, status = "mailbox_insecure", 422
    ru = "Почтовый ящик без TLS в этой установке не разрешён (MAILBOX_PLAINTEXT)."


class SignatureRefused(MillraceError):
    """The notification is not signed with the key and the salt that are set here, or none are."""

    code, status = "signature_refused", 403
    ru = "Уведомление подписано не теми ключом и солью, что заданы здесь, или они не заданы."


class SourceRefused(MillraceError):
    """Notifications are not taken from {address}."""

    code, status = "source_refused", 403
    ru = "С адреса {address} уведомления не принимаются."


# ---------------------------------------------------------------- neighbours


class ShuttingDown(MillraceError):
    """The server is being stopped and cannot wait for the rest of the upload; {kept}."""

    code, status, retryable = "shutting_down", 503, True
    ru = "Сервер останавливается и не может дождаться остатка загрузки: {kept}."


class TicketsUnavailable(MillraceError):
    """Tickets can neither be made nor checked just now; send the access token as a header, or try again."""

    code, status, retryable = "tickets_unavailable", 503, True
    ru = "Сейчас нельзя ни выдать, ни проверить билет; пришлите токен в заголовке или повторите позже."


class DatabaseUnavailable(MillraceError):
    """The database cannot be reached just now; nothing was changed, try again."""

    code, status, retryable = "database_unavailable", 503, True
    ru = "База данных сейчас недоступна; ничего не изменено, повторите запрос."


class StorageUnavailable(MillraceError):
    """The object storage cannot be reached just now; nothing was kept, try again."""

    code, status, retryable = "storage_unavailable", 503, True
    ru = "Хранилище объектов сейчас недоступно; ничего не сохранено, повторите запрос."


class ObjectMissing(MillraceError):
    """The stored object is gone."""

    code, status = "object_missing", 410
    ru = "Сохранённый объект пропал."


# ---------------------------------------------------------------- what ends a job


class StepFailed(MillraceError):
    """A step could not be done."""

    code = "step_failed"
    ru = "Шаг не выполнен."


class WorkerLost(StepFailed):
    """The step was interrupted {losses} times with its worker and is not tried again."""

    code = "worker_lost"
    ru = "Шаг {losses} раз прервался вместе с исполнителем и больше не повторяется."


class StepTimeout(StepFailed):
    """The step ran longer than {seconds} s {losses} times and is not tried again."""

    code = "step_timeout"
    ru = "Шаг {losses} раз работал дольше {seconds} с и больше не повторяется."


class PendingExpired(StepFailed):
    """No file was attached in time."""

    code = "pending_expired"
    ru = "Файл не был приложен вовремя."


class MlFailed(StepFailed):
    """The ML service could not do it: {reason}"""

    code = "ml_failed"
    ru = "ML-сервис не справился: {reason}"


class MlUnavailable(StepFailed):
    """The ML service could not be reached or is overloaded ({reason})."""

    code, status, retryable = "ml_unavailable", 503, True
    ru = "ML-сервис недоступен или перегружен ({reason})."


class MlRejected(StepFailed):
    """The ML service refused the job with status {status_code}."""

    code = "ml_rejected"
    ru = "ML-сервис отверг задачу с кодом {status_code}."


class MlProtocolError(StepFailed):
    """The ML service answered something that cannot be understood: {reason}"""

    code = "ml_protocol_error"
    ru = "Ответ ML-сервиса не удалось понять: {reason}"


class MlTimeout(StepFailed):
    """The ML service did not finish by its deadline."""

    code, retryable = "ml_timeout", True
    ru = "ML-сервис не закончил к сроку."


class MailboxUnreachable(StepFailed):
    """The mail server cannot be reached or breaks off: {reason}"""

    code, status, retryable = "mailbox_unreachable", 503, True
    ru = "Почтовый сервер недоступен или обрывает связь: {reason}"


class MailboxLoginRefused(StepFailed):
    """The mail server refuses the login; the mailbox is disabled until it is given other credentials: {reason}"""

    code, status = "mailbox_login_refused", 422
    ru = "Почтовый сервер отказал во входе; ящик выключен, пока не получит других данных для входа: {reason}"


class MailboxRefused(StepFailed):
    """The mail server refuses: {reason}"""

    code, status = "mailbox_refused", 422
    ru = "Почтовый сервер отказал: {reason}"


class MailboxDisabled(StepFailed):
    """The mailbox is disabled or gone."""

    code, status = "mailbox_disabled", 409
    ru = "Почтовый ящик выключен или удалён."


class ResultUnreadable(StepFailed):
    """The result file cannot be read: {reason}"""

    code = "result_unreadable"
    ru = "Файл результата не читается: {reason}"


class ResultMissing(StepFailed):
    """The ML service reported success, but its result is not in the storage."""

    code = "result_missing"
    ru = "ML-сервис сообщил об успехе, но результата в хранилище нет."


class ArchiveRefused(StepFailed):
    """The archive was refused: {reason}"""

    code = "archive_refused"
    ru = "Архив отклонён: {reason}"


class ArchiveNotZip(ArchiveRefused):
    """The file is named like a ZIP archive but is not one."""

    code = "archive_not_zip"
    ru = "Файл назван как ZIP-архив, но им не является."


class ArchiveTruncated(ArchiveRefused):
    """The archive is cut short or damaged: {reason}"""

    code = "archive_truncated"
    ru = "Архив обрезан или повреждён: {reason}"


class ArchiveEncrypted(ArchiveRefused):
    """The archive holds encrypted entries (first: {entry!r})."""

    code = "archive_encrypted"
    ru = "В архиве есть зашифрованные файлы (первый: {entry!r})."


class ArchiveBomb(ArchiveRefused):
    """The archive would unpack to more than is allowed: {reason}"""

    code = "archive_bomb"
    ru = "Архив распаковался бы больше дозволенного: {reason}"


class ArchiveOverlap(ArchiveBomb):
    """Members of the archive overlap: {entry!r} begins before its neighbour ends."""

    code = "archive_overlap"
    ru = "Файлы в архиве перекрываются: {entry!r} начинается раньше, чем кончается соседний."


class ArchiveRatio(ArchiveBomb):
    """The archive is packed too well to be honest: {reason}"""

    code = "archive_ratio"
    ru = "Архив сжат подозрительно сильно: {reason}"


class ArchiveTooLarge(ArchiveBomb):
    """The archive would unpack to {size} bytes, at most {limit} are allowed."""

    code = "archive_too_large"
    ru = "Архив распаковался бы до {size} байт, можно не больше {limit}."


class ArchiveTooManyEntries(ArchiveBomb):
    """The archive has {entries} entries, at most {limit} are allowed."""

    code = "archive_too_many_entries"
    ru = "В архиве файлов и папок: {entries}, можно не больше {limit}."


class ArchiveDirectoryTooLarge(ArchiveBomb):
    """The directory of the archive has {size} bytes, at most {limit} are allowed."""

    code = "archive_directory_too_large"
    ru = "Оглавление архива занимает {size} байт, можно не больше {limit}."


class ArchiveUnsafeName(ArchiveRefused):
    """The archive holds an entry whose name is not safe ({reason}): {entry!r}."""

    code = "archive_unsafe_name"
    ru = "В архиве есть файл с небезопасным именем ({reason}): {entry!r}."


class ArchiveUnsafeEntry(ArchiveRefused):
    """The archive holds an entry that is not a plain file or folder ({reason}): {entry!r}."""

    code = "archive_unsafe_entry"
    ru = "В архиве есть не обычный файл и не папка ({reason}): {entry!r}."


class ArchiveInconsistent(ArchiveRefused):
    """The archive contradicts itself, so what it holds depends on who reads it: {reason}"""

    code = "archive_inconsistent"
    ru = "Архив противоречит сам себе, и его содержимое зависит от того, кто его читает: {reason}"


class ArchiveDuplicate(ArchiveInconsistent):
    """Two entries of the archive are one path on some system: {first!r} and {entry!r}."""

    code = "archive_duplicate"
    ru = "Две записи архива на какой-нибудь системе окажутся одним путём: {first!r} и {entry!r}."


class ArchiveHeaderMismatch(ArchiveInconsistent):
    """The local header of {entry!r} contradicts the directory of the archive: it {reason}"""

    code = "archive_header_mismatch"
    ru = "Локальный заголовок {entry!r} противоречит оглавлению архива: {reason}"


class ArchiveHiddenEntries(ArchiveInconsistent):
    """The archive has members its directory does not name: {reason}"""

    code = "archive_hidden_entries"
    ru = "В архиве есть файлы, которых нет в оглавлении: {reason}"


class ArchiveTwoDirectories(ArchiveInconsistent):
    """The archive has two directories or two ends, and readers differ in which one counts: {reason}"""

    code = "archive_two_directories"
    ru = "В архиве два оглавления или два конца, и программы выбирают разные: {reason}"


class ArchiveTrailingData(ArchiveInconsistent):
    """{length} bytes follow the end of the archive."""

    code = "archive_trailing_data"
    ru = "После конца архива есть ещё {length} байт."


class ArchiveAgainstPolicy(ArchiveRefused):
    """The archive is refused by the rules of this installation ({rule}): {reason}"""

    code = "archive_against_policy"
    ru = "Архив отклонён по правилам этой установки ({rule}): {reason}"


class ArchiveUnsupported(ArchiveRefused):
    """The archive uses something that is not supported: {reason}"""

    code = "archive_unsupported"
    ru = "В архиве использовано то, что не поддерживается: {reason}"


class ArchiveMethod(ArchiveUnsupported):
    """{entry!r} is packed with a method that is not supported ({method})."""

    code = "archive_method"
    ru = "{entry!r} сжат неподдерживаемым методом ({method})."


class ArchiveVolumes(ArchiveUnsupported):
    """The archive is one of several volumes."""

    code = "archive_volumes"
    ru = "Архив состоит из нескольких томов."


class MemberIsFolder(MillraceError):
    """{entry!r} is a folder; only files can be downloaded."""

    code, status = "member_is_folder", 422
    ru = "{entry!r} — папка; скачать можно только файл."


class MemberDamaged(MillraceError):
    """{entry!r} cannot be unpacked from the archive: {reason}"""

    code, status = "member_damaged", 422
    ru = "{entry!r} не удаётся распаковать из архива: {reason}"


class MemberNotLocated(MillraceError):
    """This archive was inspected by an earlier version that kept no places; run the job again to download from it."""

    code, status = "member_not_located", 409
    ru = "Архив осмотрен прежней версией и места файлов не сохранены; чтобы скачивать из него, запустите задачу снова."


# ---------------------------------------------------------------- start


class BadSetting(MillraceError):
    """{name}: {reason}"""

    code = "bad_setting"
    ru = "{name}: {reason}"


def retold(code: str, message: str, language: str) -> str:
    """The English sentence of a stored error in another language; as it is where it is none of this tree's."""
    error = next((error for error in tree() if error.code == code), None)
    if language != "ru" or error is None:
        return message
    read = re.fullmatch(
        "".join(
            re.escape(text) + (f"(?P<{name}>.*)" if name else "")
            for text, name, _, _ in Formatter().parse((error.__doc__ or "").strip())
        ),
        message,
        re.DOTALL,
    )
    if read is None:
        return message
    return "".join(text + (_in_russian(read[name]) if name else "") for text, name, _, _ in Formatter().parse(error.ru))


def tree(root: type[MillraceError] = MillraceError) -> Iterator[type[MillraceError]]:
    """Every error class, parents before children, in the order of this file."""
    yield root
    for child in root.__subclasses__():
        yield from tree(child)
