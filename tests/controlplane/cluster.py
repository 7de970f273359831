"""A real control plane on 127.0.0.1: etcd and kube-apiserver, with schedulers and controllers where wanted.

::

    with ControlPlane() as plane:
        plane.start_scheduler({"profiles": [{"schedulerName": "default-scheduler"}]})
        plane.kubectl("get", "nodes")
        plane.etcd.pause()
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.controlplane import users
from tests.controlplane.build import controlplane_binary
from tests.controlplane.process import Process, free_port
from tests.controlplane.users import ADMIN, CONTROLLER_MANAGER, SCHEDULER, USERS, User

SchedulerConfiguration = Mapping[str, Any]
#: Those of this process, for whoever wants their logs.
RUNNING: Final[list["ControlPlane"]] = []


class ControlPlane:
    """Starts on entry, within seconds; everything is stopped and removed on exit. No kubelet: see the referee."""

    def __init__(self, more_users: Sequence[User] = (), apiserver_flags: Sequence[str] = ()) -> None:
        self._users = (*USERS, *more_users)
        self._apiserver_flags = tuple(apiserver_flags)
        #: etcd, Kubernetes and kubectl.
        self.binary = str(controlplane_binary())
        self._temporary = tempfile.TemporaryDirectory(prefix="controlplane-")
        self.folder = Path(self._temporary.name)
        self.processes: list[Process] = []
        self.etcd = self._etcd()
        self.apiserver = self._apiserver()

    def __enter__(self) -> Self:
        RUNNING.append(self)
        try:
            self.etcd.start()
            self.apiserver.start()  # it waits for etcd itself
            self.apiserver.wait_until_ready()
            self._write_kubeconfigs()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop everything, the last started first; idempotent."""
        if self in RUNNING:
            RUNNING.remove(self)
        for process in reversed(self.processes):
            process.stop()
        self._temporary.cleanup()

    # --- for clients --------------------------------------------------------------------------------------

    @property
    def authority(self) -> Path:
        """The certificate that signs the API server's: its own."""
        return self.folder / "certs" / "apiserver.crt"

    def kubeconfig(self, user: User = ADMIN) -> Path:
        """That user's kubeconfig file."""
        return self.folder / f"{self._users.index(user)}.kubeconfig"

    def kubectl(self, *arguments: str, user: User = ADMIN, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl; its standard output. Raises AssertionError with what it said if it fails."""
        done = subprocess.run(
            [self.binary, "kubectl", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env=self._variables() | {"KUBECONFIG": str(self.kubeconfig(user))},
        )
        if check and done.returncode != 0:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stderr}")
        return done.stdout + ("" if check else done.stderr)

    def grant(self, user: User, cluster_role: str) -> None:
        """Bind a ClusterRole to a user, cluster-wide, once. ``edit`` needs ``clusterrole-aggregation-controller``."""
        name = f"{cluster_role}-{self._users.index(user)}".replace(":", "-")
        new = ("create", "clusterrolebinding", name, f"--clusterrole={cluster_role}", f"--user={user.name}")
        self.kubectl("apply", "-f", "-", stdin=self.kubectl(*new, "--dry-run=client", "-o", "json"))

    # --- what else may run --------------------------------------------------------------------------------

    def start_scheduler(
        self, configuration: SchedulerConfiguration, name: str = "kube-scheduler", user: User = SCHEDULER
    ) -> Process:
        """Start a kube-scheduler with that KubeSchedulerConfiguration; returns once it is ready.

        Only the path of the kubeconfig is put in, and no leader election where the configuration is silent.
        """
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps(self._completed(configuration, user)))
        port = free_port()
        flags = [f"--config={path}", f"--secure-port={port}", "--bind-address=127.0.0.1", "-v=2"]
        flags += [f"--cert-dir={self.folder / name}", "--authorization-always-allow-paths=/readyz,/metrics"]
        return self._run(name, "kube-scheduler", flags, f"https://127.0.0.1:{port}/readyz")

    def start_controllers(self, *controllers: str) -> Process:
        """Start a kube-controller-manager with those controllers only; returns once it is healthy.

        Each of them has its own service account, as in real clusters: policies exempt who may do everything, so what
        they refuse shows only where nobody is such.
        """
        port = free_port()
        flags = [f"--controllers={','.join(controllers)}", f"--kubeconfig={self.kubeconfig(CONTROLLER_MANAGER)}"]
        flags += ["--use-service-account-credentials=true"]
        flags += ["--leader-elect=false", f"--secure-port={port}", "--bind-address=127.0.0.1"]
        flags += [f"--cert-dir={self.folder / 'controllers'}", "--authorization-always-allow-paths=/healthz,/metrics"]
        flags += [f"--service-account-private-key-file={self.folder / 'sa.key'}", f"--root-ca-file={self.authority}"]
        health = f"https://127.0.0.1:{port}/healthz"
        return self._run("kube-controller-manager", "kube-controller-manager", flags, health)

    # --- inside -------------------------------------------------------------------------------------------

    def _etcd(self) -> Process:
        client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self._etcd_url = client
        flags = [f"--data-dir={self.folder / 'etcd'}", f"--listen-client-urls={client}"]
        flags += [f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}"]
        flags += [f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}"]
        flags += ["--unsafe-no-fsync", "--log-level=warn"]
        return self._process("etcd", "etcd", flags, f"{client}/health")

    def _apiserver(self) -> Process:
        port = free_port()
        self.server = f"https://127.0.0.1:{port}"
        key = self.folder / "sa.key"
        key.write_bytes(subprocess.run([self.binary, "signing-key"], capture_output=True, check=True).stdout)
        tokens = self.folder / "tokens.csv"
        tokens.write_text(users.token_file(self._users))
        flags = [f"--etcd-servers={self._etcd_url}", "--bind-address=127.0.0.1", f"--secure-port={port}"]
        # No default route is needed then, and nothing of this machine's network shows.
        flags += ["--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none"]
        flags += [f"--cert-dir={self.folder / 'certs'}", f"--token-auth-file={tokens}", "--authorization-mode=RBAC"]
        flags += [f"--service-account-issuer={self.server}/", f"--service-account-key-file={key}"]
        flags += [f"--service-account-signing-key-file={key}", "--service-cluster-ip-range=10.0.0.0/24"]
        # Both wait for controllers that do not run here: pods would be refused, nodes stay tainted.
        flags += ["--disable-admission-plugins=ServiceAccount,TaintNodesByCondition", "--allow-privileged=true"]
        return self._process(
            "kube-apiserver", "kube-apiserver", [*flags, *self._apiserver_flags], f"{self.server}/readyz"
        )

    def _process(self, name: str, component: str, flags: Sequence[str], health: str) -> Process:
        command = [self.binary, component, *flags]
        process = Process(name, command, self.folder / f"{name}.log", health, self._variables())
        self.processes.append(process)
        return process

    def _run(self, name: str, component: str, flags: Sequence[str], health: str) -> Process:
        process = self._process(name, component, flags, health)
        process.start()
        process.wait_until_ready()
        return process

    def _write_kubeconfigs(self) -> None:
        for user in self._users:
            self.kubeconfig(user).write_text(users.kubeconfig(user, self.server, self.authority))

    def _completed(self, configuration: SchedulerConfiguration, user: User) -> dict[str, Any]:
        connection = {**configuration.get("clientConnection", {}), "kubeconfig": str(self.kubeconfig(user))}
        return {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "leaderElection": {"leaderElect": False},
            **configuration,
            "clientConnection": connection,
        }

    def _variables(self) -> dict[str, str]:
        # Nothing of the caller's, such as a proxy or a kubeconfig of his own, may leak in.
        return {"HOME": str(self.folder), "PATH": os.environ.get("PATH", "")}
