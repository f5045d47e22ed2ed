package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A year is longer than any sandbox lives.
const lifetime = 365 * 24 * time.Hour

type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
	encoded     []byte
}

// certs writes into --dir: ca.crt, ca.key, apiserver.crt/.key, apiserver-kubelet-client.crt/.key, sa.key, sa.pub, for
// every node kubelet-NODE.crt/.key, and a kubeconfig for admin, controller-manager, scheduler, kube-proxy, volumes and
// each node.
func certs(args []string) error {
	flags := flag.NewFlagSet("certs", flag.ExitOnError)
	dir := flags.String("dir", "", "folder to write to")
	server := flags.String("server", "", "URL of the API server for the kubeconfigs")
	names := flags.String("server-names", "", "comma list of names and addresses of the API server")
	nodes := flags.String("nodes", "", "comma list of NAME=ADDRESS")
	_ = flags.Parse(args)
	if err := os.MkdirAll(*dir, 0o700); err != nil {
		return err
	}
	ca, err := newAuthority("berth-sandbox")
	if err != nil {
		return err
	}
	if err := writeKeyPair(*dir, "ca", ca.encoded, ca.key); err != nil {
		return err
	}
	if err := writeServiceAccountKeys(*dir); err != nil {
		return err
	}
	if _, _, err := ca.issue(*dir, "apiserver", pkix.Name{CommonName: "kube-apiserver"}, split(*names)); err != nil {
		return err
	}
	// A user of kubelets: O=system:masters, as kubeadm does.
	client := pkix.Name{CommonName: "kube-apiserver-kubelet-client", Organization: []string{"system:masters"}}
	if _, _, err := ca.issue(*dir, "apiserver-kubelet-client", client, nil); err != nil {
		return err
	}
	users := map[string]pkix.Name{
		"admin":              {CommonName: "admin", Organization: []string{"system:masters"}},
		"controller-manager": {CommonName: "system:kube-controller-manager"},
		"scheduler":          {CommonName: "system:kube-scheduler"},
		"kube-proxy":         {CommonName: "system:kube-proxy"},
		"volumes":            {CommonName: "berth-volumes", Organization: []string{"system:masters"}},
	}
	for _, node := range split(*nodes) {
		name, address, _ := strings.Cut(node, "=")
		users[name] = pkix.Name{CommonName: "system:node:" + name, Organization: []string{"system:nodes"}}
		subject := pkix.Name{CommonName: name}
		if _, _, err := ca.issue(*dir, "kubelet-"+name, subject, []string{name, address}); err != nil {
			return err
		}
	}
	for name, subject := range users {
		certificate, key, err := ca.issue(*dir, "", subject, nil)
		if err != nil {
			return err
		}
		config := kubeconfig(*server, ca.encoded, certificate, key)
		if err := os.WriteFile(filepath.Join(*dir, name+".kubeconfig"), config, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func split(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

func template(subject pkix.Name) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	// An hour back, for clocks that differ.
	return &x509.Certificate{
		SerialNumber: serial, Subject: subject, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(lifetime),
		BasicConstraintsValid: true,
	}, nil
}

func newAuthority(name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	ca, err := template(pkix.Name{CommonName: name})
	if err != nil {
		return nil, err
	}
	ca.IsCA = true
	ca.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &authority{certificate: ca, key: key, encoded: encode("CERTIFICATE", der)}, nil
}

// issue makes a key and a certificate for clients and, with names, for servers; it writes both when file is not "".
func (ca *authority) issue(dir, file string, subject pkix.Name, names []string) ([]byte, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	leaf, err := template(subject)
	if err != nil {
		return nil, nil, err
	}
	leaf.KeyUsage = x509.KeyUsageDigitalSignature
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if len(names) > 0 {
		leaf.ExtKeyUsage = append(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, name := range names {
		if address := net.ParseIP(name); address != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, address)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca.certificate, key.Public(), ca.key)
	if err != nil {
		return nil, nil, err
	}
	certificate := encode("CERTIFICATE", der)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	if file != "" {
		if err := writeKeyPair(dir, file, certificate, key); err != nil {
			return nil, nil, err
		}
	}
	return certificate, encode("PRIVATE KEY", private), nil
}

func writeKeyPair(dir, name string, certificate []byte, key crypto.Signer) error {
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, name+".crt"), certificate, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name+".key"), encode("PRIVATE KEY", private), 0o600)
}

func writeServiceAccountKeys(dir string) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	private := encode("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
	if err := os.WriteFile(filepath.Join(dir, "sa.key"), private, 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "sa.pub"), encode("PUBLIC KEY", public), 0o644)
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func kubeconfig(server string, ca, certificate, key []byte) []byte {
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: sandbox
  cluster:
    server: %s
    certificate-authority-data: %s
users:
- name: user
  user:
    client-certificate-data: %s
    client-key-data: %s
contexts:
- name: sandbox
  context: {cluster: sandbox, user: user}
current-context: sandbox
`, server, b64(ca), b64(certificate), b64(key))
}
