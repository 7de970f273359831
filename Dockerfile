# The extender, and nothing that builds it: the last stage has no compiler, no pip, no uv, and runs as nobody.
#
#   docker build -t gpu-extender .
#   docker run --rm --network host -v "$PWD/examples:/examples:ro" gpu-extender serve --snapshot /examples/cluster.yaml

FROM python:3.11.14-slim-bookworm AS build
RUN pip install --no-cache-dir --root-user-action=ignore uv==0.13.9
ENV UV_PROJECT_ENVIRONMENT=/opt/gpu-extender \
    UV_PYTHON_DOWNLOADS=never \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy
WORKDIR /src
# The dependencies have a layer of their own: they change less often than the code.
COPY pyproject.toml uv.lock ./
RUN uv sync --locked --no-cache --no-default-groups --no-install-project
COPY README.md LICENSE ./
COPY extender ./extender
RUN uv sync --locked --no-cache --no-default-groups --no-editable

FROM python:3.11.14-slim-bookworm
RUN pip uninstall --yes --root-user-action=ignore setuptools wheel pip
COPY --from=build /opt/gpu-extender /opt/gpu-extender
ENV PATH=/opt/gpu-extender/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1
# A number, so that Kubernetes can check runAsNonRoot.
USER 65532:65532
EXPOSE 8888
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["/opt/gpu-extender/bin/python", "-c", "import os, urllib.request as http; http.urlopen('http://127.0.0.1:' + os.environ.get('GPU_EXTENDER_PORT', '8888') + '/healthz', timeout=2)"]
ENTRYPOINT ["gpu-extender"]
CMD ["serve"]
