//go:build !small

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	logsapi "k8s.io/component-base/logs/api/v1"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	manager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	scheduleroptions "k8s.io/kubernetes/cmd/kube-scheduler/app/options"
)

type list []string

func (l *list) String() string     { return fmt.Sprint(*l) }
func (l *list) Set(v string) error { *l = append(*l, v); return nil }

// controlPlane runs etcd, API server, controller manager and scheduler as goroutines of this process, until a signal
// or the first failure. One process takes half the memory of four.
func controlPlane(args []string) error {
	var forServer, forManager, forScheduler list
	flags := flag.NewFlagSet("control-plane", flag.ExitOnError)
	dir := flags.String("dir", "", "folder of etcd's data and socket")
	flags.Var(&forServer, "apiserver-arg", "an argument of kube-apiserver (repeat)")
	flags.Var(&forManager, "controller-manager-arg", "an argument of kube-controller-manager (repeat)")
	flags.Var(&forScheduler, "scheduler-arg", "an argument of kube-scheduler (repeat)")
	_ = flags.Parse(args)

	// The components share one logger and each applies its (equal) settings.
	logsapi.ReapplyHandling = logsapi.ReapplyHandlingIgnoreUnchanged

	ctx, stop := signalContext()
	defer stop()
	etcd, err := startEtcd(ctx, *dir)
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	defer etcd.Close()

	ended := make(chan error, 3)
	socket := "unix://" + filepath.Join(*dir, "etcd.sock")
	go func() {
		command := apiserver.NewAPIServerCommand()
		command.SetArgs(append([]string{"--etcd-servers=" + socket}, forServer...))
		ended <- fmt.Errorf("kube-apiserver: %w", orEnded(command.Execute()))
	}()
	if len(forManager) > 0 {
		go func() {
			// It ends when the API server is not healthy within 10 s, which a busy machine may take.
			if err := awaitServer(ctx, forManager); err != nil {
				ended <- fmt.Errorf("kube-controller-manager: %w", err)
				return
			}
			command := manager.NewControllerManagerCommand()
			command.SetArgs(forManager)
			ended <- fmt.Errorf("kube-controller-manager: %w", orEnded(command.Execute()))
		}()
	}
	if len(forScheduler) > 0 {
		go func() {
			if err := awaitServer(ctx, forScheduler); err != nil {
				ended <- fmt.Errorf("kube-scheduler: %w", err)
				return
			}
			ended <- fmt.Errorf("kube-scheduler: %w", orEnded(runScheduler(ctx, forScheduler)))
		}()
	}
	select {
	case err := <-ended:
		if ctx.Err() != nil {
			return nil
		}
		return err
	case <-ctx.Done():
		// The API server ends by itself on the same signal; give its connections a moment.
		select {
		case <-ended:
		case <-time.After(3 * time.Second):
		}
		return nil
	}
}

// awaitServer waits until the API server says it is healthy to the user of the --kubeconfig among args: it listens before
// the roles of that user are made. Without an end, since who started us has a deadline and shows our log.
func awaitServer(ctx context.Context, args []string) error {
	var path string
	for _, arg := range args {
		if value, found := strings.CutPrefix(arg, "--kubeconfig="); found {
			path = value
		}
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	for client.Discovery().RESTClient().Get().AbsPath("/healthz").Do(ctx).Error() != nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

func orEnded(err error) error {
	if err == nil {
		return errors.New("ended")
	}
	return err
}

func startEtcd(ctx context.Context, dir string) (*embed.Etcd, error) {
	config := embed.NewConfig()
	config.Dir = filepath.Join(dir, "etcd")
	config.LogLevel = "warn"
	client := url.URL{Scheme: "unix", Path: filepath.Join(dir, "etcd.sock")}
	peer := url.URL{Scheme: "unix", Path: filepath.Join(dir, "peer.sock")}
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	config.InitialCluster = config.Name + "=" + peer.String()
	// The target is for demos and tests: surviving a power cut is not worth an fsync per write.
	config.UnsafeNoFsync = true
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return nil, err
	}
	select {
	case <-etcd.Server.ReadyNotify():
		return etcd, nil
	case <-ctx.Done():
		etcd.Close()
		return nil, ctx.Err()
	}
}

func runScheduler(ctx context.Context, args []string) error {
	options := scheduleroptions.NewOptions()
	flags := pflag.NewFlagSet("kube-scheduler", pflag.ContinueOnError)
	for _, part := range options.Flags.FlagSets {
		flags.AddFlagSet(part)
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := options.ComponentGlobalsRegistry.Set(); err != nil {
		return err
	}
	name, err := cache.NewInformerName("kube-scheduler")
	if err != nil {
		return err
	}
	options.InformerName = name
	completed, scheduled, err := scheduler.Setup(ctx, options)
	if err != nil {
		return err
	}
	return scheduler.Run(ctx, completed, scheduled)
}
