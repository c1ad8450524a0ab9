"""What a job's state does not allow, and what ends a job."""

from domain.errors import MillraceError


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
