// Command berth-kube is upstream Kubernetes in one program, for the embedded target: the control plane with its etcd in
// one process, kubelet, kube-proxy, kubectl, a certificate maker and a small volume provisioner.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"berth.io/sandbox/kube/volumes"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

const usage = `berth-kube: upstream Kubernetes in one program

  control-plane --dir D --apiserver-arg=… --controller-manager-arg=… --scheduler-arg=…
  kubelet, kube-proxy, kubectl   as upstream
  certs --dir D …                the cluster's CA, certificates and kubeconfigs
  volumes …                      the volume provisioner
`

func main() {
	name := filepath.Base(os.Args[0])
	if name == "berth-kube" {
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
	case "kubelet":
		return cli.Run(kubelet.NewKubeletCommand(context.Background()))
	case "kube-proxy":
		return cli.Run(proxy.NewProxyCommand())
	case "kubectl":
		command := kubectl.NewDefaultKubectlCommand()
		if err := cli.RunNoErrOutput(command); err != nil {
			kubectlutil.CheckErr(err)
		}
		return 0
	case "certs":
		return report(certs(os.Args[1:]))
	case "volumes":
		ctx, stop := signalContext()
		defer stop()
		return report(volumes.Run(ctx, os.Args[1:]))
	case "control-plane":
		return report(controlPlane(os.Args[1:]))
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
