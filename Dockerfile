FROM python:3.13.15-slim-trixie@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/opscore
COPY requirements.txt /tmp/requirements.txt
RUN /opt/opscore/bin/pip install --require-hashes --requirement /tmp/requirements.txt
COPY opscore /tmp/opscore
# A running service shows this page.
COPY docs/reference/errors.md /tmp/opscore/api/errors.md
# The package is copied, not built: building would fetch an unpinned build backend.
RUN site="$(/opt/opscore/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    && cp -r /tmp/opscore "$site/opscore" \
    && printf '#!/opt/opscore/bin/python\nfrom opscore.cli import main\n\nmain()\n' \
        > /opt/opscore/bin/opscore \
    && chmod 0755 /opt/opscore/bin/opscore \
    && /opt/opscore/bin/python -m compileall -q "$site/opscore"

FROM build AS tests
WORKDIR /app
COPY requirements-dev.txt pyproject.toml ./
RUN /opt/opscore/bin/pip install --require-hashes --requirement requirements-dev.txt
COPY tests tests
ENV PATH="/opt/opscore/bin:$PATH" \
    HYPOTHESIS_STORAGE_DIRECTORY=/tmp/hypothesis \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
ENTRYPOINT ["python", "-m", "pytest", "-p", "no:cacheprovider"]
CMD ["tests/acceptance/test_network.py"]

FROM python:3.13.15-slim-trixie@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b AS runtime
COPY --from=build /opt/opscore /opt/opscore
RUN mkdir /data && chown 10001:10001 /data
ENV PATH="/opt/opscore/bin:$PATH" \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OPSCORE_HOST=0.0.0.0 \
    OPSCORE_PORT=8000
WORKDIR /data
VOLUME /data
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ['OPSCORE_PORT']}/health/live\", timeout=2)"]
ENTRYPOINT ["opscore"]
CMD ["serve"]
