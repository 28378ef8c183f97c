package main

import (
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestProxyVariables runs itself: the environment is read once in a process.
func TestProxyVariables(t *testing.T) {
	const ask = "TEST_ASK_PROXY_FOR"
	if rawURL, ok := os.LookupEnv(ask); ok {
		before := strings.Join(os.Environ(), "\n")
		proxy, err := environmentProxy()
		if err != nil {
			t.Fatal(err)
		}
		if after := strings.Join(os.Environ(), "\n"); after != before {
			t.Errorf("environment %q, want as it was", after)
		}
		u, err := url.Parse(rawURL)
		if err != nil {
			t.Fatal(err)
		}
		switch u, err := proxy(&http.Request{URL: u}); {
		case err != nil:
			t.Log("answer: " + err.Error())
		default:
			t.Logf("answer: %v.", u)
		}
		return
	}
	for _, tt := range []struct{ env, url, want string }{
		{"http_proxy=http://u:secret@proxy:3128", "http://host/", "http://u:secret@proxy:3128."},
		{"http_proxy=proxy:3128", "http://host/", "http://proxy:3128."},
		{"http_proxy=127.0.0.1:3128", "http://host/", "http://127.0.0.1:3128."},
		{"http_proxy=proxy", "http://host/", "http://proxy."},
		{"http_proxy=", "http://host/", "<nil>."},
		{"https_proxy=socks5://proxy", "https://host/", "socks5://proxy."},
		{"http_proxy=http://u:secret@127.0.0.1:bad/", "http://host/", "http_proxy is not the address of a proxy"},
		{"HTTPS_PROXY=http://u:secret@127.0.0.1:bad/", "https://host/", "HTTPS_PROXY is not the address of a proxy"},
		{"https_proxy=http://u:secret@[::1", "https://host/", "https_proxy is not the address of a proxy"},
		{"http_proxy=ftp://proxy", "http://host/", "http_proxy is not the address of a proxy"},
		{"http_proxy=http://:3128", "http://host/", "http_proxy is not the address of a proxy"},
		// What is not used may be wrong.
		{"http_proxy=http://127.0.0.1:bad/", "https://host/", "<nil>."},
		{"http_proxy=http://127.0.0.1:bad/", "http://localhost/", "<nil>."},
		{"http_proxy=http://127.0.0.1:bad/ no_proxy=host", "http://host/", "<nil>."},
		{"HTTP_PROXY=proxy http_proxy=http://127.0.0.1:bad/", "http://host/", "http://proxy."},
	} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProxyVariables$", "-test.v")
		cmd.Env = append(strings.Fields(tt.env), ask+"="+tt.url)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "answer: "+tt.want+"\n") {
			t.Errorf("%s %s: %v, want %s of:\n%s", tt.env, tt.url, err, tt.want, out)
		}
	}
}
