// Command berth-kube is upstream Kubernetes in one program, for the embedded target: the control plane with its etcd in
// one process, kubelet, kube-proxy, kubectl, a certificate maker and a small volume provisioner.
//
// Built with the tag `small` it is the last two only, for machines that have the upstream programs.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"berth.io/sandbox/kube/volumes"
)

const usage = `berth-kube: upstream Kubernetes in one program

  control-plane --dir D --apiserver-arg=… --controller-manager-arg=… --scheduler-arg=…
  kubelet, kube-proxy, kubectl, kube-apiserver, kube-controller-manager, kube-scheduler, etcd   as upstream
  certs --dir D …                the cluster's CA, certificates and kubeconfigs
  volumes …                      the volume provisioner
`

func main() {
	name := filepath.Base(os.Args[0])
	if strings.HasPrefix(name, "berth-kube") {
		if len(os.Args) < 2 {
			fmt.Fprint(os.Stderr, usage)
			os.Exit(2)
		}
		name = os.Args[1]
		os.Args = append([]string{name}, os.Args[2:]...)
	}
	os.Exit(run(name))
}

func run(name string) int {
	switch name {
	case "certs":
		return report(certs(os.Args[1:]))
	case "volumes":
		ctx, stop := signalContext()
		defer stop()
		return report(volumes.Run(ctx, os.Args[1:]))
	}
	if code, known := runComponent(name); known {
		return code
	}
	fmt.Fprint(os.Stderr, usage)
	return 2
}

func report(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func signalContext() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
}
