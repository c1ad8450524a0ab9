"""Why an archive, or one member of it, is refused."""

from domain.errors import MillraceError
from domain.errors.jobs import StepFailed


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
