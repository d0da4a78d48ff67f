# syntax=docker/dockerfile:1
# The server: web, worker and commands. Built in one stage, run in another as nobody in particular.
FROM python:3.13.9-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY models models
COPY policies policies
COPY broker broker
COPY guestkey guestkey
RUN python -m venv /opt/guestkey \
 && /opt/guestkey/bin/pip install --no-cache-dir --disable-pip-version-check '.[server]' \
 && /opt/guestkey/bin/pip uninstall --yes pip

FROM python:3.13.9-slim-bookworm
# The worker speaks to SFTP hosts by ssh; web writes lists of revoked certificates with ssh-keygen.
RUN apt-get update && apt-get install --yes --no-install-recommends openssh-client && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 10001 guestkey && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin guestkey
COPY --from=build /opt/guestkey /opt/guestkey
ENV PATH=/opt/guestkey/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=3)"]
CMD ["guestkey", "serve", "--host", "0.0.0.0", "--port", "8000"]
