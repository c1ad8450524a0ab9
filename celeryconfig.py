"""Celery's settings, each with its reason. Figures and thread numbers: docs/decisions/0002-celery-on-redis.md."""

from storage.configuration import settings

_settings = settings()

broker_url = _settings.broker_url
broker_connection_retry_on_startup = True  # the broker may start after us
broker_connection_max_retries = None  # Celery would end a worker that has not found the broker a hundred times
broker_connection_timeout = 2  # a publisher must not hang on a dead broker; the sweep publishes what it could not
if broker_url.startswith("redis"):
    # Redelivery by the broker is not what recovers a job (the lease is): longer than any step may take, so that no
    # running step is delivered twice in vain (celery #5935)
    visibility_timeout = 900  # read by the worker as well as by the transport
    broker_transport_options = {
        "visibility_timeout": visibility_timeout,
        # A worker can stay alive but deaf after a Redis restart (celery #8030): notice dead connections by ourselves
        "socket_timeout": 5,  # also what a publisher waits for a Redis that hangs; a worker polls every second
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "health_check_interval": 25,
        "queue_order_strategy": "round_robin",
        "priority_steps": list(range(10)),  # the lanes: a list in Redis for each, asked in this order
    }
else:  # RabbitMQ: CELERY_BROKER_URL=amqp://... Why each: docs/decisions/0006-rabbitmq.md
    broker_transport_options = {
        "confirm_publish": True,  # a publish counts once the broker has it
        "max_retries": 0,  # of connecting: kombu would try for two seconds at each publish, and hold up the request
    }
    broker_heartbeat = 10  # a connection is given up after two that did not come
    task_default_queue_type = "quorum"  # replicated and durable; classic mirrored queues are gone from RabbitMQ 4
    task_create_missing_queue_type = "quorum"
    worker_detect_quorum_queues = True  # they know no global prefetch limit
    # A worker that was cut off for a moment comes back while the broker still holds its old connection: the exclusive
    # queue of that would be locked, and the worker would die of it, its steps with it
    control_queue_exclusive, control_queue_durable = False, True
    worker_consumer = "workers.consumer:Consumer"  # without the 28 queues for delayed messages, of which we send none

task_serializer = "json"
accept_content = ("json",)
task_ignore_result = True  # chains need no result backend, and it leaks (celery #7801); Postgres is the record
task_default_queue = "default"
task_acks_late = True  # a message goes back when its worker dies; a second delivery finds the claim and leaves
task_reject_on_worker_lost = True
task_time_limit = 600  # below the visibility timeout: a hanging step is killed, its lease runs out, it is tried again
task_send_sent_event = True  # Flower shows tasks from the moment they are sent
task_publish_retry = False  # a refused publish is not waited for: the row is its own outbox
task_store_errors_even_if_ignored = False

worker_send_task_events = True  # Flower
worker_prefetch_multiplier = 1  # with acks_late: what a worker has not begun stays in Redis for the others
worker_hijack_root_logger = False  # structlog has it
worker_redirect_stdouts = False
worker_soft_shutdown_timeout = 3.0  # SIGTERM: finish what is short, hand the rest to another worker
worker_cancel_long_running_tasks_on_connection_loss = False  # a step needs Postgres, not the broker, to be finished
worker_max_tasks_per_child = 5000  # memory that libraries leak is given back now and then
worker_max_memory_per_child = 512 * 1024  # KiB

beat_max_loop_interval = 1.0  # seconds
