// Serves POST /mutate as most Go webhooks do: controller-runtime's admission package, a typed
// decode of the pod, and a patch computed by comparing JSON before and after.
//
// Usage: admission_go PORT FOLDER SIDECAR.json — FOLDER holds tls.crt and tls.key; SIDECAR.json
// holds what is added: {"container": {...}, "volumes": [...], "annotations": {...}}.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net/http"
	"os"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/manager/signals"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

type sidecar struct {
	Container   corev1.Container  `json:"container"`
	Volumes     []corev1.Volume   `json:"volumes"`
	Annotations map[string]string `json:"annotations"`
}

type injector struct {
	decoder admission.Decoder
	added   sidecar
}

func (i *injector) Handle(ctx context.Context, req admission.Request) admission.Response {
	pod := &corev1.Pod{}
	if err := i.decoder.Decode(req, pod); err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	for _, container := range pod.Spec.InitContainers {
		if container.Name == i.added.Container.Name {
			return admission.Allowed("already injected")
		}
	}
	if pod.Spec.HostNetwork {
		return admission.Allowed("host network")
	}
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	for key, value := range i.added.Annotations {
		pod.Annotations[key] = value
	}
	pod.Spec.InitContainers = append([]corev1.Container{i.added.Container}, pod.Spec.InitContainers...)
	pod.Spec.Volumes = append(pod.Spec.Volumes, i.added.Volumes...)
	marshaled, err := json.Marshal(pod)
	if err != nil {
		return admission.Errored(http.StatusInternalServerError, err)
	}
	// One line a decision, as ours writes.
	log.FromContext(ctx).Info("admission", "uid", req.UID, "namespace", req.Namespace,
		"object", pod.GenerateName, "decision", "injected")
	return admission.PatchResponseFromRaw(req.Object.Raw, marshaled)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	log.SetLogger(zap.New())
	port, err := strconv.Atoi(os.Args[1])
	check(err)
	text, err := os.ReadFile(os.Args[3])
	check(err)
	scheme := runtime.NewScheme()
	check(clientgoscheme.AddToScheme(scheme))
	handler := &injector{decoder: admission.NewDecoder(scheme)}
	check(json.Unmarshal(text, &handler.added))
	pair, err := tls.LoadX509KeyPair(os.Args[2]+"/tls.crt", os.Args[2]+"/tls.key")
	check(err)
	// Without a watch of the folder: on a machine with many pods there may be no inotify left.
	fixed := func(config *tls.Config) {
		config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	options := webhook.Options{Port: port, Host: "127.0.0.1", TLSOpts: []func(*tls.Config){fixed}}
	server := webhook.NewServer(options)
	server.Register("/mutate", &webhook.Admission{Handler: handler})
	check(server.Start(signals.SetupSignalHandler()))
}
