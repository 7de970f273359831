"""``gpu-extender agent``: what runs inside a reservation pod."""

import os
from pathlib import Path

import click

from extender.agent.report import ACCOUNT, Identity, OwnPod, in_cluster_api
from extender.agent.run import BOOT_ID_FILE, run


@click.command(epilog="Example (as a reservation pod's container does it): gpu-extender agent")
@click.option("--api", metavar="URL", envvar="GPU_EXTENDER_API",
              help="the Kubernetes API  [default: the cluster that this pod runs in]")  # fmt: skip
@click.option("--service-account", type=click.Path(path_type=Path), default=ACCOUNT, show_default=True,
              envvar="GPU_EXTENDER_SERVICE_ACCOUNT", help="folder with token and ca.crt")  # fmt: skip
@click.option("--boot-id-file", type=click.Path(path_type=Path), default=BOOT_ID_FILE, show_default=True,
              envvar="GPU_EXTENDER_BOOT_ID_FILE", help="where the kernel tells the id of this boot")  # fmt: skip
def agent(api: str | None, service_account: Path, boot_id_file: Path) -> None:
    """Report the device of this reservation pod and watch it.

    It needs NVML, exactly one GPU or MIG instance, and POD_NAMESPACE, POD_NAME, POD_UID in the environment; it
    writes annotations of its own pod and nothing else. SIGTERM does not end it: the device is in use. Where there is
    nothing to report it says why, on the pod and on stderr, and exits with status 2.
    """
    identity = Identity.from_environment(os.environ)
    run(OwnPod(identity, api or in_cluster_api(os.environ), service_account), boot_id_file)
