# Two images from one file:
#   docker build --target app -t millrace .      the API, the workers, beat, Flower, the migrations
#   docker build --target ml -t millrace-ml .    the reference ML service: the same and magika with its model
# The embedded servers of `millrace up` are in neither.

FROM python:3.11-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
RUN python -m venv /opt/millrace
ENV PATH=/opt/millrace/bin:$PATH
# Dependencies before the code: a change of the code leaves this layer as it is.
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*p['dependencies'], *p['optional-dependencies']['audio'], sep='\n')" > requirements.txt \
    && pip install -c constraints.txt -r requirements.txt
COPY README.md LICENSE celeryconfig.py ./
COPY api ./api
COPY domain ./domain
COPY migrations ./migrations
COPY stack ./stack
COPY storage ./storage
COPY workers ./workers
RUN pip install --no-deps .

FROM build AS build-ml
RUN pip install -c constraints.txt magika

FROM python:3.11-slim AS runtime
ENV PATH=/opt/millrace/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# A number and not a name: Kubernetes' runAsNonRoot can check no names.
RUN groupadd --system --gid 10001 millrace \
    && useradd --system --uid 10001 --gid millrace --no-create-home --home-dir /nonexistent millrace
WORKDIR /srv
USER 10001:10001

FROM runtime AS ml
COPY --from=build-ml /opt/millrace /opt/millrace
EXPOSE 8500
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8500/health', timeout=3)"]
CMD ["python", "-m", "stack.ml", "--host", "0.0.0.0", "--port", "8500"]

# The last stage is what a build without --target makes.
FROM runtime AS app
COPY --from=build /opt/millrace /opt/millrace
EXPOSE 8000
# Alive, not ready: a neighbour that is down is no reason to restart this process.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health/live', timeout=3)"]
CMD ["uvicorn", "api.app:create_app", "--factory", "--http", "api.server:BoundedHeads", "--host", "0.0.0.0", "--port", "8000", "--timeout-graceful-shutdown", "8", "--no-access-log", "--no-server-header"]
