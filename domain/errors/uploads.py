"""Files on their way in, and what an owner may keep."""

from domain.errors import MillraceError


class FileInUse(MillraceError):
    """A job works or has worked on this file; delete the job first."""

    code, status = "file_in_use", 409
    ru = "С этим файлом работает или работала задача; сначала удалите её."


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


class TooManyUploads(MillraceError):
    """Only {limit} of your uploads may be under way at once; end one of them first."""

    code, status, retryable = "too_many_uploads", 429, True
    ru = "Одновременно можно вести не больше {limit} загрузок; сначала завершите одну из них."
