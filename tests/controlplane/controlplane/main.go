// Command controlplane is etcd, the Kubernetes control plane and kubectl in one binary, chosen by its first
// argument. Each runs as a process of its own: their signal handlers and metric registries are per process.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

// components maps a name to the function that runs it until its end and gives the exit code.
var components = map[string]func() int{
	"etcd":                    server(func() int { etcdmain.Main(os.Args); return 0 }),
	"kube-apiserver":          server(command(apiserver.NewAPIServerCommand)),
	"kube-controller-manager": server(command(controllers.NewControllerManagerCommand)),
	"kube-scheduler":          server(command(func() *cobra.Command { return scheduler.NewSchedulerCommand() })),
	"kubectl":                 command(kubectl.NewDefaultKubectlCommand),
	"signing-key":             signingKey,
}

func command(build func() *cobra.Command) func() int {
	return func() int { return cli.Run(build()) }
}

// server ends with the process at the other end of its standard input, so that a killed test leaves nothing behind.
func server(run func() int) func() int {
	return func() int {
		if info, err := os.Stdin.Stat(); err == nil && info.Mode()&os.ModeNamedPipe != 0 {
			go func() {
				_, _ = io.Copy(io.Discard, os.Stdin)
				os.Exit(1)
			}()
		}
		return run()
	}
}

// signingKey prints a new key for service account tokens: Python's standard library can't make one.
func signingKey() int {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		panic(err)
	}
	_ = pem.Encode(os.Stdout, &pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	return 0
}

func main() {
	if len(os.Args) > 1 {
		if component, known := components[os.Args[1]]; known {
			os.Args = os.Args[1:]
			os.Exit(component())
		}
	}
	names := make([]string, 0, len(components))
	for name := range components {
		names = append(names, name)
	}
	slices.Sort(names)
	fmt.Fprintf(os.Stderr, "usage: controlplane %s [flags]\n", strings.Join(names, "|"))
	os.Exit(2)
}
