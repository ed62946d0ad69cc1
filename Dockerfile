ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# Without pip of its own: the venv is all that the last stage takes over.
RUN python -m venv --without-pip /opt/venv
# Wheels only: a source distribution would be built with tools that no lock names.
COPY requirements.lock .
RUN pip --python /opt/venv install --only-binary :all: --require-hashes --requirement requirements.lock
COPY requirements-build.lock .
RUN pip install --only-binary :all: --require-hashes --requirement requirements-build.lock
COPY . .
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && pip --python /opt/venv install --no-deps --no-index /wheels/*.whl

FROM python:${PYTHON_VERSION}-slim
# pip is of no use here. /run/secrets is the user's, so that a new volume mounted there is too.
RUN pip uninstall --yes --quiet --root-user-action ignore pip \
 && useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin refresher \
 && install --directory --owner refresher --group refresher /run/secrets
COPY --from=build /opt/venv /opt/venv
COPY refresher/sample /sample
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["refresher"]
CMD ["run"]
# Last: another commit changes nothing above.
ARG REVISION=unknown
LABEL org.opencontainers.image.title="cover-refresher" \
      org.opencontainers.image.description="Keeps every stored TikTok cover_image_url alive: a background daemon over PostgreSQL" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="MIT"
