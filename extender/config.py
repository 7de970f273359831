"""The service's settings: one list of names, defaults, ranges and explanations.

An option ``--some-name`` is ``GPU_EXTENDER_SOME_NAME`` in the environment and ``some-name`` in the YAML file of
``--config``; a flag beats the environment, which beats the file, which beats the default.
Durations are seconds, memory is MiB.
"""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from extender.core import names
from extender.core.errors import InputError
from extender.yaml_reader import yaml_documents

ENVIRONMENT_PREFIX = "GPU_EXTENDER_"
#: Which cluster is served: settings of which one is given. The first source that gives one decides.
CLUSTERS = ("snapshot", "kubeconfig")


def _no_switch(value: object) -> object:
    """YAML's ``true`` is 1 to Python, and nobody means that."""
    if isinstance(value, bool):
        raise ValueError("must be a number")  # noqa: TRY004 - the kind that pydantic reports
    return value


Int = Annotated[int, BeforeValidator(_no_switch)]
Seconds = Annotated[float, BeforeValidator(_no_switch), Field(gt=0, allow_inf_nan=False)]
Port = Annotated[Int, Field(ge=0, le=65535)]


def _kebab(name: str) -> str:
    return name.replace("_", "-")


class Settings(BaseModel):
    """Everything that can be set. Field names with ``-`` for ``_`` are the options' names."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=_kebab, populate_by_name=True)

    snapshot: Path | None = Field(None, description="serve the embedded cluster loaded from this file")
    kubeconfig: Path | None = Field(None, description="the cluster to serve; default: in-cluster credentials")
    host: str = Field("127.0.0.1", description="address of the scheduler verbs")
    port: Port = Field(8888, description="port of the scheduler verbs; 0 takes any free one")
    observe_host: str | None = Field(None, description="address of a second listener with the GET paths only")
    observe_port: Port | None = Field(None, description="port of that second listener")
    tls_cert_file: Path | None = Field(None, description="certificate of the scheduler verbs; needed beyond 127.0.0.1")
    tls_key_file: Path | None = Field(None, description="its private key")
    tls_client_ca_file: Path | None = Field(None, description="authority that signs the certificates of clients")
    shortlist: Int = Field(16, ge=0, description="how many nodes filter returns; 0 = all that fit")
    strategy: Literal["binpack", "spread", "fgd", "adaptive"] = Field(
        names.DEFAULT_STRATEGY, description="how pods are placed"
    )
    claim_ttl: Seconds = Field(5.0, description="seconds a claim lasts without a bind")
    bind_timeout: Seconds = Field(8.0, description="seconds a bind may take; below kube-scheduler's httpTimeout")
    scheduler_name: str = Field("gpu-scheduler", description="the kube-scheduler profile that calls this extender")
    agent_image: str = Field(f"gpu-extender:{version('gpu-extender')}", description="image of the reservation pods")
    agent_runtime_class: str | None = Field(None, description="runtimeClassName of the reservation pods; default: none")
    idle_timeout: Seconds = Field(60.0, description="seconds a shared GPU without a share stays open")
    report_timeout: Seconds = Field(120.0, description="seconds a reservation pod may take to report its device")
    spare_gpus: Int = Field(0, ge=0, description="idle shared GPUs that each GPU node keeps open ahead of demand")
    learn_nodes: Int = Field(
        4, ge=0, description="nodes on which a GPU is reserved at once only to learn its memory; 0 = never"
    )
    lease_namespace: str = Field("gpu-extender", description="where the Lease of the background work is")
    max_body_mib: Int = Field(64, ge=1, description="MiB of a request body; above it 413")
    preemption: bool = Field(False, description="let kube-scheduler (1.38 and later) try preemption")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")


def load(flags: Mapping[str, Any], environment: Mapping[str, str], file: Path | None) -> Settings:
    """Settings from flags (None = not given), environment and file. Raises InputError naming source, name and value."""
    layers = [
        (f"file {file}", _from_file(file) if file is not None else {}),
        ("environment", _from_environment(environment)),
        ("flag", {_kebab(name): value for name, value in flags.items() if value is not None}),
    ]
    merged: dict[str, Any] = {}
    source: dict[str, str] = {}
    for name_of_layer, layer in layers:
        if _clusters(layer):
            merged = {name: value for name, value in merged.items() if name not in CLUSTERS}
        merged |= layer
        source |= dict.fromkeys(layer, name_of_layer)
    if len(_clusters(merged)) > 1:
        raise InputError(f"{source[CLUSTERS[0]]}: {' and '.join(CLUSTERS)}: give one of the two")
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        raise InputError(_sentence(error, source)) from error


def _clusters(layer: Mapping[str, Any]) -> list[str]:
    return [name for name in CLUSTERS if layer.get(name) is not None]


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    variables = {_kebab(name): ENVIRONMENT_PREFIX + name.upper() for name in Settings.model_fields}
    return {name: environment[variable] for name, variable in variables.items() if variable in environment}


def _from_file(path: Path) -> dict[str, Any]:
    try:
        documents = list(yaml_documents(path.read_text("utf-8")))
    except (OSError, UnicodeDecodeError, InputError) as error:
        raise InputError(f"{path}: {error}") from error
    if len(documents) > 1:
        raise InputError(f"{path}: must be one document, has {len(documents)}")
    content = documents[0] if documents else None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be a mapping of settings, is {type(content).__name__}")
    return content


def _sentence(error: ValidationError, source: Mapping[str, str]) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else "settings"
    if first["type"] == "extra_forbidden":
        return f"{source.get(name, 'settings')}: unknown setting {name}"
    rule = first["msg"].lower().removeprefix("value error, ")
    return f"{source.get(name, 'settings')}: {name} is {str(first['input'])!r}: {rule}"
