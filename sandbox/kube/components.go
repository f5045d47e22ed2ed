//go:build !small

package main

import (
	"context"
	"os"

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// runComponent runs an upstream program by its name; false when there is none of that name here.
func runComponent(name string) (int, bool) {
	switch name {
	case "kubelet":
		return cli.Run(kubelet.NewKubeletCommand(context.Background())), true
	case "kube-proxy":
		return cli.Run(proxy.NewProxyCommand()), true
	case "kubectl":
		if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
			kubectlutil.CheckErr(err)
		}
		return 0, true
	case "control-plane":
		return report(controlPlane(os.Args[1:])), true
	}
	return 0, false
}
