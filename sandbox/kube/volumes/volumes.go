// Package volumes is the dynamic provisioner of the embedded target: for each claim of a class whose provisioner is
// berth.io/local it makes a folder on this machine and a `local` volume that is tied to the node the scheduler chose.
//
// It holds no state. Each claim and volume is looked at as it is now and moved one step, so it may be killed at any
// moment: the folder is made before the volume object and removed before the object goes, and both steps repeat safely.
package volumes

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
)

// Provisioner is the name storage classes of this provisioner carry.
const Provisioner = "berth.io/local"

const (
	annProvisionedBy = "pv.kubernetes.io/provisioned-by"
	annSelectedNode  = "volume.kubernetes.io/selected-node"
	// Keeps a volume object until its folder is gone, in whichever order claim and volume are deleted.
	finalizer = "berth.io/local-volume"

	workers = 4
	resync  = time.Minute
)

// key names what to look at again: a claim with its namespace, or a volume with none.
type key struct {
	namespace, name string
}

// invalid is an error that no retry mends: it is told to the user as an event and not tried again until something changes.
type invalid struct{ reason string }

func (e invalid) Error() string { return e.reason }

type provisioner struct {
	client  kubernetes.Interface
	root    string
	classes []string
	events  record.EventRecorder

	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
	storage storagelisters.StorageClassLister
	queue   workqueue.TypedRateLimitingInterface[key]
}

// Run serves until ctx ends. It returns an error for wrong flags or a kubeconfig it cannot use.
func Run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("volumes", flag.ContinueOnError)
	kubeconfig := flags.String("kubeconfig", "", "file with the address and credentials of the API server")
	root := flags.String("root", "", "folder for the volumes: <root>/<node>/<volume>")
	classes := flags.String("classes", "", "storage classes to serve, separated by commas; empty: every class of provisioner "+Provisioner)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *kubeconfig == "" || !filepath.IsAbs(*root) {
		return errors.New("volumes: --kubeconfig is required and --root must be an absolute path")
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return fmt.Errorf("volumes: kubeconfig %s: %w", *kubeconfig, err)
	}
	// A cluster of many volumes is made in one go: the default of 5 requests a second would be felt.
	config.QPS, config.Burst = 100, 200
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("volumes: %w", err)
	}
	if err := os.MkdirAll(*root, 0o755); err != nil {
		return fmt.Errorf("volumes: --root: %w", err)
	}
	return serve(ctx, client, filepath.Clean(*root), splitList(*classes))
}

func splitList(text string) []string {
	return slices.DeleteFunc(strings.Split(text, ","), func(item string) bool { return item == "" })
}

func serve(ctx context.Context, client kubernetes.Interface, root string, classes []string) error {
	factory := informers.NewSharedInformerFactory(client, resync)
	claims := factory.Core().V1().PersistentVolumeClaims()
	volumes := factory.Core().V1().PersistentVolumes()
	storage := factory.Storage().V1().StorageClasses()

	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})

	p := &provisioner{
		client:  client,
		root:    root,
		classes: classes,
		events:  broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: Provisioner}),
		claims:  claims.Lister(),
		volumes: volumes.Lister(),
		storage: storage.Lister(),
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[key](50*time.Millisecond, 30*time.Second)),
	}
	enqueue := func(object any) {
		if meta, err := cache.DeletionHandlingObjectToName(object); err == nil {
			p.queue.Add(key{meta.Namespace, meta.Name})
		}
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    enqueue,
		UpdateFunc: func(_, object any) { enqueue(object) },
		DeleteFunc: enqueue,
	}
	for _, informer := range []cache.SharedIndexInformer{claims.Informer(), volumes.Informer()} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return fmt.Errorf("volumes: %w", err)
		}
	}
	storage.Informer()
	factory.Start(ctx.Done())
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return fmt.Errorf("volumes: the list of %v could not be read: %w", kind, context.Cause(ctx))
		}
	}
	p.removeStrayFolders()
	log.Printf("volumes: serving below %s", root)
	for range workers {
		go p.work(ctx)
	}
	<-ctx.Done()
	p.queue.ShutDownWithDrain()
	factory.Shutdown()
	return nil
}

func (p *provisioner) work(ctx context.Context) {
	for {
		item, stopped := p.queue.Get()
		if stopped {
			return
		}
		err := p.reconcile(ctx, item)
		switch {
		case err == nil, errors.As(err, &invalid{}):
			p.queue.Forget(item)
		case apierrors.IsConflict(err):
			// Somebody wrote the object since our cache saw it: a normal answer, the newer one is on its way.
			p.queue.AddRateLimited(item)
		default:
			log.Printf("volumes: %s/%s: %v", item.namespace, item.name, err)
			p.queue.AddRateLimited(item)
		}
		p.queue.Done(item)
	}
}

func (p *provisioner) reconcile(ctx context.Context, item key) error {
	if item.namespace == "" {
		volume, err := p.volumes.Get(item.name)
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		return p.reconcileVolume(ctx, volume)
	}
	claim, err := p.claims.PersistentVolumeClaims(item.namespace).Get(item.name)
	if apierrors.IsNotFound(err) {
		// Its volume becomes Released, which is an event of the volume.
		return nil
	}
	if err != nil {
		return err
	}
	return p.reconcileClaim(ctx, claim)
}

// class returns the claim's storage class if it is ours, else nil.
func (p *provisioner) class(claim *corev1.PersistentVolumeClaim) (*storagev1.StorageClass, error) {
	if claim.Spec.StorageClassName == nil || *claim.Spec.StorageClassName == "" {
		return nil, nil
	}
	name := *claim.Spec.StorageClassName
	if len(p.classes) > 0 && !slices.Contains(p.classes, name) {
		return nil, nil
	}
	class, err := p.storage.Get(name)
	if apierrors.IsNotFound(err) {
		// The claim is looked at again at the next resync; the class may be written after it.
		return nil, nil
	}
	if err != nil || class.Provisioner != Provisioner {
		return nil, err
	}
	return class, nil
}

func (p *provisioner) reconcileClaim(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	if claim.DeletionTimestamp != nil {
		return nil
	}
	if claim.Spec.VolumeName != "" {
		return p.grow(ctx, claim)
	}
	class, err := p.class(claim)
	if class == nil || err != nil {
		return err
	}
	if err := p.provision(ctx, claim, class); err != nil {
		p.events.Event(claim, corev1.EventTypeWarning, "ProvisioningFailed", err.Error())
		return err
	}
	return nil
}

// provision makes folder and volume for an unbound claim once the scheduler has chosen a node; the volume controller binds them.
func (p *provisioner) provision(ctx context.Context, claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass) error {
	if class.VolumeBindingMode == nil || *class.VolumeBindingMode != storagev1.VolumeBindingWaitForFirstConsumer {
		return invalid{fmt.Sprintf("storage class %s must have volumeBindingMode WaitForFirstConsumer: a local volume is made on the node its pod is scheduled to", class.Name)}
	}
	if claim.Spec.VolumeMode != nil && *claim.Spec.VolumeMode != corev1.PersistentVolumeFilesystem {
		return invalid{"volumeMode must be Filesystem: local volumes are folders"}
	}
	if claim.Spec.Selector != nil {
		return invalid{"selector is not supported for dynamic volumes: remove it"}
	}
	for _, mode := range claim.Spec.AccessModes {
		if mode != corev1.ReadWriteOnce && mode != corev1.ReadWriteOncePod {
			return invalid{fmt.Sprintf("access mode %s is not possible on a local volume: use ReadWriteOnce", mode)}
		}
	}
	nodeName := claim.Annotations[annSelectedNode]
	if nodeName == "" {
		return nil
	}
	volumeName := "pvc-" + string(claim.UID)
	if _, err := p.volumes.Get(volumeName); err == nil {
		return nil
	}
	node, err := p.client.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		// The node went after it was chosen: without the annotation the scheduler chooses again.
		return p.forgetNode(ctx, claim)
	}
	if err != nil {
		return err
	}
	folder := filepath.Join(p.root, nodeName, volumeName)
	if err := os.MkdirAll(folder, 0o777); err != nil {
		return err
	}
	// Not left to the umask: pods write as users of their own, with or without fsGroup.
	if err := os.Chmod(folder, 0o777); err != nil {
		return err
	}
	if _, err := p.client.CoreV1().PersistentVolumes().Create(ctx, newVolume(volumeName, folder, claim, class, node), metav1.CreateOptions{}); err != nil {
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return fmt.Errorf("volume %s: %w", volumeName, err)
	}
	p.events.Eventf(claim, corev1.EventTypeNormal, "ProvisioningSucceeded", "made volume %s on node %s", volumeName, nodeName)
	return nil
}

func newVolume(name, folder string, claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, node *corev1.Node) *corev1.PersistentVolume {
	reclaim := corev1.PersistentVolumeReclaimDelete
	if class.ReclaimPolicy != nil {
		reclaim = *class.ReclaimPolicy
	}
	hostname := node.Labels[corev1.LabelHostname]
	if hostname == "" {
		hostname = node.Name
	}
	mode := corev1.PersistentVolumeFilesystem
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Annotations: map[string]string{annProvisionedBy: Provisioner},
			Finalizers:  []string{finalizer},
		},
		Spec: corev1.PersistentVolumeSpec{
			StorageClassName:              class.Name,
			PersistentVolumeReclaimPolicy: reclaim,
			AccessModes:                   claim.Spec.AccessModes,
			VolumeMode:                    &mode,
			MountOptions:                  class.MountOptions,
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: requested(claim)},
			// With the uid the volume belongs to this very claim, not to a later one of the same name.
			ClaimRef: &corev1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: folder}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{
					Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{hostname},
				}}}},
			}},
		},
	}
}

func requested(claim *corev1.PersistentVolumeClaim) resource.Quantity {
	return claim.Spec.Resources.Requests[corev1.ResourceStorage]
}

func (p *provisioner) forgetNode(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	updated := claim.DeepCopy()
	delete(updated.Annotations, annSelectedNode)
	_, err := p.client.CoreV1().PersistentVolumeClaims(claim.Namespace).Update(ctx, updated, metav1.UpdateOptions{})
	return err
}

// grow raises the capacity of volume and claim to what the bound claim asks for. A folder has no size of its own.
func (p *provisioner) grow(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	volume, err := p.volumes.Get(claim.Spec.VolumeName)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	wanted := requested(claim)
	if !p.ours(volume) || volume.Spec.ClaimRef == nil || volume.Spec.ClaimRef.UID != claim.UID || claim.Status.Phase != corev1.ClaimBound {
		return nil
	}
	held := volume.Spec.Capacity[corev1.ResourceStorage]
	shown := claim.Status.Capacity[corev1.ResourceStorage]
	if wanted.Cmp(held) > 0 {
		patch := fmt.Appendf(nil, `{"spec":{"capacity":{"storage":%q}}}`, wanted.String())
		if _, err := p.client.CoreV1().PersistentVolumes().Patch(ctx, volume.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return fmt.Errorf("growing volume %s to %s: %w", volume.Name, wanted.String(), err)
		}
		held = wanted
	}
	if held.Cmp(shown) <= 0 {
		return nil
	}
	// A condition of a resize under way would contradict the new capacity.
	patch := fmt.Appendf(nil, `{"status":{"capacity":{"storage":%q},"conditions":null}}`, held.String())
	if _, err := p.client.CoreV1().PersistentVolumeClaims(claim.Namespace).Patch(
		ctx, claim.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
		return fmt.Errorf("growing claim %s/%s to %s: %w", claim.Namespace, claim.Name, held.String(), err)
	}
	p.events.Eventf(claim, corev1.EventTypeNormal, "VolumeGrown", "volume %s grown to %s", volume.Name, held.String())
	return nil
}

func (p *provisioner) ours(volume *corev1.PersistentVolume) bool {
	return volume.Annotations[annProvisionedBy] == Provisioner && volume.Spec.Local != nil
}

// reconcileVolume deletes folder and object of a volume nobody claims any more. A volume of policy Retain keeps its folder.
func (p *provisioner) reconcileVolume(ctx context.Context, volume *corev1.PersistentVolume) error {
	if !p.ours(volume) {
		return nil
	}
	if volume.DeletionTimestamp == nil && volume.Status.Phase != corev1.VolumeReleased {
		// The claim may have been seen growing, or bound, before this volume was.
		if claim := volume.Spec.ClaimRef; claim != nil {
			p.queue.Add(key{claim.Namespace, claim.Name})
		}
		return nil
	}
	claimed, err := p.claimed(ctx, volume)
	if err != nil || claimed {
		return err
	}
	remove := volume.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete
	if remove {
		if err := p.removeFolder(volume.Spec.Local.Path); err != nil {
			return err
		}
	} else if volume.DeletionTimestamp == nil {
		return nil
	}
	if volume.DeletionTimestamp == nil {
		options := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &volume.UID}}
		if err := p.client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, options); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("volume %s: %w", volume.Name, err)
		}
		// The deletion comes back as an update; the finalizer goes then.
		return nil
	}
	if !slices.Contains(volume.Finalizers, finalizer) {
		return nil
	}
	updated := volume.DeepCopy()
	updated.Finalizers = slices.DeleteFunc(updated.Finalizers, func(name string) bool { return name == finalizer })
	_, err = p.client.CoreV1().PersistentVolumes().Update(ctx, updated, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// claimed asks the API server, not the cache: data is about to be deleted.
func (p *provisioner) claimed(ctx context.Context, volume *corev1.PersistentVolume) (bool, error) {
	ref := volume.Spec.ClaimRef
	if ref == nil {
		return false, nil
	}
	claim, err := p.client.CoreV1().PersistentVolumeClaims(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil && claim.UID == ref.UID, err
}

func (p *provisioner) removeFolder(folder string) error {
	relative, err := filepath.Rel(p.root, folder)
	if err != nil || len(strings.Split(relative, string(filepath.Separator))) != 2 || strings.HasPrefix(relative, "..") {
		return invalid{fmt.Sprintf("folder %s is not of the form %s/<node>/<volume>: not removed", folder, p.root)}
	}
	return os.RemoveAll(folder)
}

// removeStrayFolders removes what a kill between making a folder and writing its volume left behind. Such a folder is
// empty; one with content is never touched, for a volume that is not listed here may be one of a restored database.
func (p *provisioner) removeStrayFolders() {
	folders, err := filepath.Glob(filepath.Join(p.root, "*", "pvc-*"))
	if err != nil {
		return
	}
	for _, folder := range folders {
		if _, err := p.volumes.Get(filepath.Base(folder)); apierrors.IsNotFound(err) {
			_ = os.Remove(folder)
		}
	}
}
