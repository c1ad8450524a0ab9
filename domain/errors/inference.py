"""The ML service and its results."""

from domain.errors import MillraceError
from domain.errors.jobs import StepFailed


class UnknownProfile(MillraceError):
    """Unknown profile {profile!r}; known profiles: {known}."""

    code, status = "unknown_profile", 422
    ru = "Неизвестный профиль {profile!r}; известные профили: {known}."


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


class ResultUnreadable(StepFailed):
    """The result file cannot be read: {reason}"""

    code = "result_unreadable"
    ru = "Файл результата не читается: {reason}"


class ResultMissing(StepFailed):
    """The ML service reported success, but its result is not in the storage."""

    code = "result_missing"
    ru = "ML-сервис сообщил об успехе, но результата в хранилище нет."
