package app

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func newRecorder(a *App, method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	a.handler.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w
}

// socketClient asks over the socket of that name, whatever the URL's host.
func socketClient(socket string) *http.Client {
	c := newClient()
	c.Transport.(*http.Transport).DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return c
}

func TestUnixSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "a.sock")
	o := testOptions(t)
	o.Listen = append(o.Listen, "unix:"+socket)
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	stop := runApp(t, a)
	if got := ask(t, socketClient(socket), "GET", "http://x/healthz"); got.status != http.StatusOK {
		t.Errorf("over the socket: %d %s", got.status, got.body)
	}
	if got := ask(t, newClient(), "GET", a.url("/healthz")); got.status != http.StatusOK {
		t.Errorf("over TCP: %d %s", got.status, got.body)
	}
	info, err := os.Lstat(socket)
	if err != nil || info.Mode() != os.ModeSocket|0o660 {
		t.Errorf("mode %v, %v, want a socket for owner and group", info.Mode(), err)
	}
	stop()
	if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the stop: %v, want no file", err)
	}
}

func TestUnixSocketPlaceThatIsTaken(t *testing.T) {
	for name, tc := range map[string]struct {
		occupy func(t *testing.T, socket string)
		want   string // of the error, after the address
	}{
		"nobody":         {func(*testing.T, string) {}, ""},
		"a dead owner's": {leaveSocket, ""},
		"a living owner": {func(t *testing.T, socket string) {
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
		}, ": address already in use: stop the other program or choose another --web.listen-address"},
		"a file": {
			func(t *testing.T, socket string) { writeFile(t, socket, "text") },
			": a file that is no socket is there: remove it or choose another --web.listen-address",
		},
		"a directory": {
			func(t *testing.T, socket string) { _ = os.Mkdir(socket, 0o700) },
			": a file that is no socket is there: remove it or choose another --web.listen-address",
		},
		"a link to a dead owner's": {func(t *testing.T, socket string) {
			leaveSocket(t, socket+".real")
			_ = os.Symlink(socket+".real", socket)
		}, ": a file that is no socket is there: remove it or choose another --web.listen-address"},
		"no directory": {
			func(t *testing.T, socket string) { _ = os.Remove(filepath.Dir(socket)) },
			": no such file or directory: want a directory that exists",
		},
	} {
		t.Run(name, func(t *testing.T) {
			address := "unix:" + filepath.Join(t.TempDir(), "a.sock")
			tc.occupy(t, strings.TrimPrefix(address, "unix:"))
			l, err := listenOn(t.Context(), address)
			if err == nil {
				defer func() { _ = l.Close() }()
			} else {
				err = listenError(address, err)
			}
			want := tc.want
			if want != "" {
				want = "listen on " + address + want
			}
			checkError(t, err, want)
		})
	}
}

// leaveSocket makes the socket of a process that was killed.
func leaveSocket(t *testing.T, socket string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestUnixSocketOfASuccessorStays(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "a.sock")
	ours, err := listenUnix(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(socket, socket+".old"); err != nil {
		t.Fatal(err)
	}
	theirs, err := listenUnix(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = theirs.Close() }()
	if err := ours.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(socket); err != nil {
		t.Errorf("the successor's file: %v", err)
	}
}

// The number of a removed file can be the next one's.
func TestUnixSocketIsRemovedOnce(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "a.sock")
	l, err := listenUnix(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Link(socket, socket+".same"); err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if err := os.Rename(socket+".same", socket); err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	if _, err := os.Lstat(socket); err != nil {
		t.Errorf("after the second close: %v, want the file that came later", err)
	}
}

func TestListenErrorsSayWhatToDo(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1:0":       "listen on 192.0.2.1:0: cannot assign requested address: want an address of this machine",
		"unix:/nowhere/a":   "listen on unix:/nowhere/a: no such file or directory: want a directory that exists",
		"[::1%nowhere]:0:0": "listen on [::1%nowhere]:0:0: address [::1%nowhere]:0:0: too many colons in address",
	} {
		l, err := listenOn(t.Context(), address)
		if err == nil {
			_ = l.Close()
			t.Errorf("listen on %s: no error", address)
			continue
		}
		if got := listenError(address, err).Error(); !strings.Contains(got, want) {
			t.Errorf("error %q, want %q", got, want)
		}
	}
}

func TestSystemdThatPassesNoSocket(t *testing.T) {
	t.Setenv("LISTEN_PID", "")
	o := testOptions(t)
	o.SystemdSocket = true
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	checkError(t, a.Run(t.Context()), "take systemd's sockets: none was passed: "+
		"start by a socket unit, or leave --web.systemd-socket out")
}

// userSecret is the line of a user u whose password is secret.
const userSecret = "basic_auth_users:\n  u: $2a$04$LNa/aMo4uRyem0THFfN94eJFiCIhUAXPuJqiJySpA/IHH5phghotG\n"

func TestTLSAndBasicAuthOnEveryListener(t *testing.T) {
	pool, tlsConfig := newCertificate(t)
	o := testOptions(t)
	o.Listen = []string{"127.0.0.1:0", "127.0.0.1:0"}
	o.WebConfigFile = filepath.Join(t.TempDir(), "web.yml")
	writeFile(t, o.WebConfigFile, tlsConfig+userSecret)
	a := startApp(t, o)
	trusting := newClient()
	trusting.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: pool}
	for _, addr := range a.Addrs() {
		for name, tc := range map[string]struct {
			client *http.Client
			url    string
			status int // 0: an error
		}{
			"the right password": {
				trusting, "https://u:secret@" + addr.String() + "/metrics", http.StatusOK,
			},
			"a wrong password": {
				trusting, "https://u:guess@" + addr.String() + "/metrics", http.StatusUnauthorized,
			},
			"a user nobody knows": {
				trusting, "https://v:secret@" + addr.String() + "/metrics", http.StatusUnauthorized,
			},
			"no password": {trusting, "https://" + addr.String() + "/", http.StatusUnauthorized},
			"health wants one, too": {
				trusting, "https://" + addr.String() + "/healthz", http.StatusUnauthorized,
			},
			"no TLS":                 {trusting, "http://" + addr.String() + "/healthz", http.StatusBadRequest},
			"a client without trust": {newClient(), "https://u:secret@" + addr.String() + "/metrics", 0},
		} {
			t.Run(name, func(t *testing.T) {
				got, err := tryAsk(t.Context(), tc.client, "GET", tc.url)
				if got.status != tc.status || (err != nil) != (tc.status == 0) {
					t.Errorf("status %d, %v, want %d", got.status, err, tc.status)
				}
			})
		}
	}
}

func TestWebConfigThatCannotBe(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"a password in clear text": {"basic_auth_users: {u: secret}\n", "crypto/bcrypt: "},
		"an unknown key":           {"tls: {}\n", "field tls not found"},
		"a key without its file": {
			"tls_server_config: {cert_file: c.pem}\n", "missing one of key or key_file",
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := testOptions(t)
			o.WebConfigFile = filepath.Join(t.TempDir(), "web.yml")
			writeFile(t, o.WebConfigFile, tc.text)
			_, err := New(o)
			if err == nil || !strings.HasPrefix(err.Error(), "--web.config.file "+o.WebConfigFile+": ") ||
				!strings.Contains(err.Error(), tc.want) {
				t.Errorf("New = %v, want the file and %q", err, tc.want)
			}
		})
	}
}

// newCertificate returns who trusts a new certificate for 127.0.0.1, and the
// lines that configure it.
func newCertificate(t *testing.T) (*x509.CertPool, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	wanted := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, wanted, wanted, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	writeFile(t, filepath.Join(dir, "cert.pem"), string(cert))
	writeFile(t, filepath.Join(dir, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	return pool, "tls_server_config:\n  cert_file: " + dir + "/cert.pem\n  key_file: " + dir + "/key.pem\n"
}
